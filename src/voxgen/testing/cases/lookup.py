"""Cases of `voxgen.ops.lookup`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.lookup import lookup_cells

from . import Case

DTYPES = (torch.float32,)


def random_grid(resolution: int, batch_size: int, cells: int, seed: int = 0) -> VoxelGrid:
    """Up to so many random cells in each sample; sample 1 stays empty if there are more than one."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(resolution, (batch_size * cells, 4), generator=generator)
    coords[:, 0] = torch.arange(len(coords)) // max(cells, 1)
    coords = coords[(coords[:, 0] != 1) | (batch_size == 1)].unique(dim=0).int()
    return VoxelGrid.build(coords, resolution=resolution, batch_size=batch_size)[0]


def queries(grid: VoxelGrid, seed: int = 1) -> Tensor:
    """All cells of the grid and their surroundings, unsorted, and cells far outside."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.randint(-1, 2, grid.coords.shape, generator=generator)
    largest = 2**31 - 1
    far = torch.tensor([[0, -1, 0, 0], [-1, 0, 0, 0], [grid.batch_size, 0, 0, 0], [0, -9, -17, 5], [0, largest, -largest - 1, largest]])
    coords = torch.cat((grid.coords, grid.coords + step, far)).int()
    return coords[torch.randperm(len(coords), generator=generator)]


def case(name: str, grid: VoxelGrid, coords: Tensor) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        wanted = inputs["coords"]
        return {"rows": lookup_cells(grid.to(wanted.device), wanted, backend=backend)}

    return Case(name, {"coords": coords}, run)


def cases(dtype: torch.dtype) -> list[Case]:
    grids = {
        "empty grid": VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2),
        "empty batch": VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=0),
        "one cell": VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1),
        "full grid": random_grid(9, 1, 9000),
        "batch of three, one empty": random_grid(21, 3, 700),
        "too large for a table": random_grid(65536, 3, 500),
    }
    found = [case(name, grid, queries(grid)) for name, grid in grids.items()]
    strided = torch.cat((queries(grids["full grid"]),) * 2, 1)[:, 2:6]
    return [
        *found,
        case("no queries", grids["full grid"], torch.zeros(0, 4, dtype=torch.int32)),
        case("strided", grids["full grid"], strided),
    ]
