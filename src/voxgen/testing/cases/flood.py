"""Cases of `voxgen.ops.flood`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.flood import flood
from voxgen.testing.grids import full_grid, random_grid

from . import Case

DTYPES = (torch.float32,)


def maze(resolution: int, samples: int) -> VoxelGrid:
    """Walls in 60 % of the cells: winding ways, dead ends and closed rooms."""
    grid = full_grid(resolution, samples)
    return grid.select(torch.rand(len(grid), generator=torch.Generator().manual_seed(4)) < 0.6)


def cases(dtype: torch.dtype) -> list[Case]:
    none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=(5, 4, 6), batch_size=2)
    shell = full_grid(9)
    radius = (shell.cells - 4).float().norm(dim=1)
    shell = shell.select(((radius > 2.4) & (radius < 3.5)) | (radius < 1.1))
    return [
        _case("no wall", none),
        _case("all wall", full_grid((2, 3, 4))),
        _case("closed shell around a stone", shell),
        _case("maze", maze(14, 1)),
        _case("maze, three samples", maze(9, 3)),
        _case("one sample empty", random_grid((600, 0, 900), 11)),
        _case("flat", maze(12, 1).select(maze(12, 1).cells[:, 2] == 3)),
    ]


def _case(name: str, wall: VoxelGrid) -> Case:
    asked = full_grid(wall.resolution, wall.batch_size).coords.flip(0)

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"reached": flood(wall.to(inputs["cells"].device), inputs["cells"], backend=backend)}

    return Case(name, {"cells": asked}, run)
