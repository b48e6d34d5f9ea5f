"""The definition: water spreads by one cell at a time in the dense volume."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core import VoxelGrid


def flood(wall: VoxelGrid, cells: Tensor) -> Tensor:
    """See `voxgen.ops.flood.flood`."""
    free = torch.ones(wall.batch_size, *wall.resolution, dtype=torch.bool, device=wall.device)
    free[tuple(wall.coords.long().unbind(1))] = False
    free = torch.nn.functional.pad(free, (1,) * 6, value=True)
    water = torch.zeros_like(free)
    water[:, 0] = True
    while True:
        spread = water.clone()
        for axis in (1, 2, 3):
            last = water.shape[axis] - 1
            spread.narrow(axis, 1, last).logical_or_(water.narrow(axis, 0, last))
            spread.narrow(axis, 0, last).logical_or_(water.narrow(axis, 1, last))
        spread &= free
        if torch.equal(spread, water):
            break
        water = spread
    b, x, y, z = cells.long().unbind(1)
    return water[b, x + 1, y + 1, z + 1]
