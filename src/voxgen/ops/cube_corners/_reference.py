"""The definition: the rows of all corners of all cells, made unique."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._corners import STEPS, CubeCorners


def run(kind: str, *args: Any) -> Any:
    """One of the functions below."""
    return {"build": build, "neighbors": neighbors, "sum": sum_at_corners, "spread": spread}[kind](*args)


def build(grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """(m, 4) int32 corners and (n, 8) int32 rows."""
    steps = torch.tensor([(0, *step) for step in STEPS], dtype=torch.int32, device=grid.device)
    rows = (grid.coords[:, None] + steps).reshape(-1, 4)
    if len(rows) == 0:
        return rows, rows.reshape(0, 8)
    coords, index = rows.unique(dim=0, return_inverse=True)
    return coords, index.reshape(-1, 8).int()


def neighbors(corners: CubeCorners) -> Tensor:
    """(m, 3) int64 rows of the corners one step ahead along x, y and z, -1 where there is none."""
    row = {tuple(corner): i for i, corner in enumerate(corners.coords.tolist())}
    ahead = [[row.get((b, x + 1, y, z), -1), row.get((b, x, y + 1, z), -1), row.get((b, x, y, z + 1), -1)] for b, x, y, z in row]
    return torch.tensor(ahead, dtype=torch.int64, device=corners.device).reshape(-1, 3)


def sum_at_corners(values: Tensor, corners: CubeCorners) -> Tensor:
    """(n, 8, c) values of cells at their corners → (m, c): the sum over the cells that share a corner."""
    total = values.new_zeros(len(corners), values.shape[2])
    return total.index_add(0, corners.index.flatten(), values.flatten(0, 1))


def spread(values: Tensor, corners: CubeCorners) -> Tensor:
    """(m, c) values of corners → (n, 8, c): those of the corners of each cell."""
    return values.index_select(0, corners.index.flatten()).reshape(len(corners.index), 8, values.shape[1])
