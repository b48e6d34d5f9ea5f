"""The example of open surfaces."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import open_surface

from voxgen.io import load_mesh
from voxgen.metrics import mesh_report


def test_borders_stay_with_sparse_flex_only(tmp_path: Path) -> None:
    found = open_surface.main(["--smallest", "--out", str(tmp_path)])
    for name, loops in (("bowl", 1), ("skirt", 2)):
        flex, capped, plate = found[name].values()
        assert flex.border_loops == loops
        assert max(flex.there, flex.back) < 0.06  # pleats at 32³; measured 0.03
        assert abs(flex.area - 1) < 0.02
        assert flex.f > 0.99
        assert (capped.border_edges, plate.border_edges) == (0, 0)
        assert capped.back > 10 * flex.back  # the caps
        assert plate.area > 1.8
        assert not mesh_report(load_mesh(tmp_path / f"{name}_sparseflex.glb")).is_closed
        assert mesh_report(load_mesh(tmp_path / f"{name}_sdf_flood.glb")).is_closed
    assert (tmp_path / "open_surface.png").stat().st_size > 10_000
