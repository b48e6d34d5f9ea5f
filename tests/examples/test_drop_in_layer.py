"""The example of a layer that is dropped into existing code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import drop_in_layer


def test_the_network_gives_the_same_with_the_new_layer(tmp_path: Path) -> None:
    found = drop_in_layer.main(["--smallest", "--out", str(tmp_path)])
    for name in ("existing layer against conv3d", "voxgen's layer against conv3d", "network after against before"):
        assert found[name] < 1e-5, name
    assert json.loads((tmp_path / "drop_in_layer.json").read_text()).keys() == found.keys()
