"""The example that compares spatial sparse attention with full attention."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("matplotlib", reason="the example draws a plot")

import ssa_vs_full_attention


def test_the_error_falls_with_every_block_to_rounding(tmp_path: Path) -> None:
    found = ssa_vs_full_attention.main(["--smallest", "--out", str(tmp_path)])
    assert found.top_k[0] == 1
    for name, errors in found.errors.items():
        assert all(more < less for less, more in itertools.pairwise(errors)), name
        assert errors[0] > 0.5, name
        assert errors[-1] < 1e-5, name  # float32, other order of summing
    *scored, random = found.errors.values()
    for errors in scored:
        assert all(own < chance for own, chance in zip(errors[:-1], random[:-1], strict=True))
    assert len(found.tokens) == 2
    assert all(value > 0 for values in found.seconds.values() for value in values)
    assert (tmp_path / "ssa_vs_full_attention.png").stat().st_size > 10_000
