"""The definition: binary search among the sorted keys of the grid."""

from __future__ import annotations

from torch import Tensor

from voxgen.core.grid import VoxelGrid


def lookup(grid: VoxelGrid, coords: Tensor) -> Tensor:
    """See `lookup_cells`."""
    return grid.rows_of(coords).int()
