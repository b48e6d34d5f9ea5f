"""Plain torch operations on any device: unique int64 keys, and sums over a table of the cells around each corner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._corners import STEPS, CubeCorners, corner_keys, strides
from ._transfer import Transfer


def run(kind: str, *args: Any) -> Any:
    """See `_reference.run`."""
    if kind == "sum":
        return Transfer.apply(*args, sum_at_corners, spread)
    if kind == "spread":
        return Transfer.apply(*args, spread, sum_at_corners)
    return build(*args) if kind == "build" else neighbors(*args)


def build(grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """See `_reference.build`."""
    sb, sx, sy = strides(grid.resolution)
    steps = torch.tensor([x * sx + y * sy + z for x, y, z in STEPS], device=grid.device)
    keys, index = (corner_keys(grid.coords, grid.resolution)[:, None] + steps).unique(return_inverse=True)
    x, y, z = keys % sb // sx, keys % sx // sy, keys % sy
    return torch.stack((keys // sb, x, y, z), 1).int(), index.reshape(-1, 8).int()


def neighbors(corners: CubeCorners) -> Tensor:
    """See `_reference.neighbors`."""
    if len(corners) == 0:
        return torch.zeros(0, 3, dtype=torch.int64, device=corners.device)
    keys = corner_keys(corners.coords, corners.resolution)
    found = []
    for axis, step in enumerate((*strides(corners.resolution)[1:], 1)):
        row = torch.searchsorted(keys, keys + step).clamp_(max=len(keys) - 1)
        here = (keys[row] == keys + step) & (corners.coords[:, axis + 1] < corners.resolution[axis])
        found.append(torch.where(here, row, -1))
    return torch.stack(found, 1)


def cells_around(corners: CubeCorners) -> Tensor:
    """(m, 8) int32: entry k is the cell that has the corner as its corner k, -1 if there is none."""
    cells = torch.full((len(corners), 8), -1, dtype=torch.int32, device=corners.device)
    rows = torch.arange(len(corners.index), dtype=torch.int32, device=corners.device)
    for k in range(8):
        cells[corners.index[:, k], k] = rows
    return cells


def sum_at_corners(values: Tensor, corners: CubeCorners) -> Tensor:
    """See `_reference.sum_at_corners`."""
    total = values.new_zeros(len(corners), values.shape[2])
    if len(values) == 0:
        return total
    cells = corners.cached("cells", lambda: cells_around(corners))
    for k in range(8):
        rows = cells[:, k]
        total += torch.where(rows[:, None] >= 0, values[rows.clamp_min(0), k], 0)
    return total


def spread(values: Tensor, corners: CubeCorners) -> Tensor:
    """See `_reference.spread`."""
    return values.index_select(0, corners.index.flatten()).reshape(len(corners.index), 8, values.shape[1])
