"""The recipe of TRELLIS.2 put together: the flows of shapes and materials must agree on the scale of shapes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples' shared parts need voxgen[train]")

import assemble_trellis2 as example

from voxgen.models import LatentNormalization

MADE = LatentNormalization((0.1, 0.2), (1.0, 2.0))


def written(folder: Path, read: LatentNormalization) -> Path:
    (folder / "shape_normalization.json").write_text(json.dumps(asdict(read)))
    return folder


def test_flows_that_agree_pass(tmp_path: Path) -> None:
    example.require_same_shapes(MADE, tmp_path)  # of a training that wrote no such file
    example.require_same_shapes(MADE, written(tmp_path, LatentNormalization((0.1005, 0.2), (1.0, 1.9995))))


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (LatentNormalization((0.102, 0.2), (1.0, 2.0)), "up to 0.002 apart"),
        (LatentNormalization((0.1, 0.2), (1.0, 2.5)), "up to 0.5 apart"),
        (LatentNormalization((0.1,), (1.0,)), "1 channels for 2"),
    ],
)
def test_flows_that_do_not_are_refused(read: LatentNormalization, words: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="learnt on shapes that were normalised otherwise") as caught:
        example.require_same_shapes(MADE, written(tmp_path, read))
    assert words in str(caught.value)
    assert "shape_normalization.json" in str(caught.value)
