"""Cases of `voxgen.ops.marching_cubes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.ops.marching_cubes import marching_cubes
from voxgen.testing.grids import full_grid, random_grid
from voxgen.testing.shells import ball, ring

from . import Case

DTYPES = (torch.float32, torch.float64, torch.float16)


def noise(grid: VoxelGrid, seed: int = 0) -> Tensor:
    """Random values, some of them exactly 0: all cases of a cube, ambiguous ones and ties."""
    values = torch.randn(len(grid), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * 4).round() / 4


def solid(grid: VoxelGrid) -> Tensor:
    """A ball in sample 0, a ring in the others, as distances in the unit cube."""
    points = (grid.cells + 0.5) / torch.tensor(grid.resolution) - 0.5
    return torch.where(grid.batch == 0, ball(points, 0.35), ring(points))


def case(name: str, grid: VoxelGrid, values: Tensor, dtype: torch.dtype, level: float = 0.0, **options: Any) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        at = grid.to(inputs["values"].device)
        found = marching_cubes(at, inputs["values"], level, **options, backend=backend)
        return {
            "vertices": found.vertices,
            "faces": found.faces,
            "edges": found.edges,
            "share": found.share,
            "vertex_offsets": found.vertex_offsets,
            "face_offsets": found.face_offsets,
        }

    return Case(name, {"values": values.to(dtype)}, run, ("values",))


def cases(dtype: torch.dtype) -> list[Case]:
    frame = Frame((-1.0, -0.5, 0.25), (0.3, 0.125, 0.25), "z")
    none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2)
    nothing = VoxelGrid.from_sorted(none.coords, resolution=8, batch_size=0)
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    full, dense = full_grid(12), random_grid((700, 0, 900), 11)
    uneven = full_grid((5, 9, 4), 2)
    placed = VoxelGrid(uneven.coords, uneven.resolution, 2, frame)
    body = full_grid(13, 2).select(solid(full_grid(13, 2)).abs() < 0.25)
    edge = torch.cartesian_prod(torch.zeros(1), *[torch.tensor([0.0, 65534.0, 65535.0])] * 3).int()
    border = VoxelGrid.from_sorted(edge, resolution=65536, batch_size=1)
    one_sign = torch.ones(len(full), dtype=torch.float64)
    return [
        case("empty grid", none, noise(none), dtype),
        case("empty batch", nothing, noise(nothing), dtype),
        case("no crossing", full, one_sign, dtype),
        case("one cell", one, noise(one) - 9, dtype),
        case("one cell, surrounded", one, noise(one) - 9, dtype, outside=1.0),
        case("noise", full, noise(full), dtype),
        case("noise in missing cells, one sample empty", dense, noise(dense), dtype, 0.25),
        case("noise, surrounded", dense, noise(dense), dtype, -0.25, outside=0.5),
        case("noise, surrounded from inside", dense, noise(dense), dtype, 0.1, outside=-2.0, beyond_grid=False),
        case("uneven frame", placed, noise(placed), dtype, outside=1.0),
        case("bands of a ball and a ring", body, solid(body), dtype),
        case("level off 0", body, solid(body), dtype, 0.05, outside=1.0, beyond_grid=False),
        case("border of the largest grid", border, noise(border), dtype),
    ]
