"""Cases of `voxgen.ops.cube_corners`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.cube_corners import average_at_corners, corner_neighbors, cube_corners, values_at_cubes
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float64, torch.float16)


def case(name: str, grid: VoxelGrid, dtype: torch.dtype, channels: int = 4, weighted: bool = False) -> Case:
    generator = torch.Generator().manual_seed(0)
    inputs = {"values": torch.randn(len(grid), 8, channels, generator=generator, dtype=torch.float64).to(dtype)}
    if weighted:
        inputs["weight"] = torch.randint(1, 4, (len(grid),), generator=generator).to(dtype)

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        corners = cube_corners(fresh(grid.to(inputs["values"].device)), backend=backend)
        mean = average_at_corners(inputs["values"], corners, weight=inputs.get("weight"), backend=backend)
        return {
            "coords": corners.coords,
            "index": corners.index,
            "offsets": corners.offsets,
            "counts": corners.counts,
            "neighbors": corner_neighbors(corners, backend=backend),
            "mean": mean,
            "at cubes": values_at_cubes(mean, corners, backend=backend),
        }

    return Case(name, inputs, run, tuple(inputs))


def cases(dtype: torch.dtype) -> list[Case]:
    none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2)
    nothing = VoxelGrid.from_sorted(none.coords, resolution=8, batch_size=0)
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    edge = torch.cartesian_prod(torch.tensor([0.0, 2.0]), *[torch.tensor([0.0, 65534.0, 65535.0])] * 3).int()
    border = VoxelGrid.from_sorted(edge, resolution=65536, batch_size=3)
    return [
        case("empty grid", none, dtype),
        case("empty batch", nothing, dtype, 1),
        case("one cell", one, dtype, 3),
        case("batch of three, one empty", random_grid((300, 0, 500), 9), dtype),
        case("weighted", random_grid((200, 1), 12, 3), dtype, 1, weighted=True),
        case("full, uneven", full_grid((3, 5, 2), 2), dtype, 67),
        case("no channel", full_grid(2), dtype, 0),
        case("border of the largest grid", border, dtype),
    ]
