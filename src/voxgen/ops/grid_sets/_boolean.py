"""Union, intersection, difference and dilation of the cells of grids."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3, require_same_device
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import lookup_cells


def union(first: VoxelGrid, second: VoxelGrid) -> VoxelGrid:
    """Cells that are in either grid.

    Args:
        first, second: grids of one resolution, batch size, frame and device.
    Returns:
        A new grid; `first` itself where that has all cells of `second`.
    Raises:
        RangeError: different resolutions or batch sizes.   FrameError: different frames.   DeviceError: different devices.
    Empty grids are legal.   Batch: sample s is joined with sample s.
    Example:
        >>> len(union(grid, grid)) == len(grid)
        True
    """
    _require_alike("union", first, second)
    keys = torch.cat((first.keys, second.keys)).unique()
    return first if len(keys) == len(first) else _of_keys(keys, first)


def intersection(first: VoxelGrid, second: VoxelGrid) -> VoxelGrid:
    """Cells that are in both grids; arguments and errors as `union`."""
    _require_alike("intersection", first, second)
    return first.select(second.rows_of(first.coords) >= 0)


def difference(first: VoxelGrid, second: VoxelGrid) -> VoxelGrid:
    """Cells of `first` that are not in `second`; arguments and errors as `union`."""
    _require_alike("difference", first, second)
    return first.select(second.rows_of(first.coords) < 0)


def dilate(grid: VoxelGrid, kernel_size: int | Int3 = 3) -> VoxelGrid:
    """All cells within a box around a cell of the grid, clipped to the grid's bounds.

    Args:
        grid: any number of cells.
        kernel_size: side of the box in cells, one odd number or three; 3 adds the 26 neighbours.
    Returns:
        A grid of the same resolution, batch size and frame; `grid` itself for a box of one cell.
    Raises:
        RangeError: a size that is even or less than 1.
    Empty samples stay empty.
    """
    sizes = require_int3("dilate", "kernel_size", kernel_size, 1, MAX_RESOLUTION)
    if any(size % 2 == 0 for size in sizes):
        raise RangeError(f"dilate: kernel_size must be odd, so that the box has a middle; got {sizes}.")
    for axis, size in enumerate(sizes, start=1):  # a box is three lines, one after the other
        shifts = [shift for shift in range(-(size // 2), size // 2 + 1) if shift]
        new = [pack_keys(_new_cells(grid, axis, shift)) for shift in shifts]
        if new:  # most shifted cells exist already, so only the others are sorted
            keys = torch.cat((grid.keys, torch.cat(new).unique())).sort().values
            grid = _of_keys(keys, grid)
    return grid


def _new_cells(grid: VoxelGrid, axis: int, shift: int) -> Tensor:
    """The cells of a grid moved along an axis, those that stay within its bounds and are no cells of it."""
    moved = grid.coords.clone()
    moved[:, axis] += shift
    inside = (moved[:, axis] >= 0) & (moved[:, axis] < grid.resolution[axis - 1])
    return moved[inside & (lookup_cells(grid, moved) < 0)]


def _of_keys(keys: Tensor, like: VoxelGrid) -> VoxelGrid:
    return VoxelGrid.from_sorted(unpack_keys(keys), resolution=like.resolution, batch_size=like.batch_size, frame=like.frame)


def _require_alike(where: str, first: VoxelGrid, second: VoxelGrid) -> None:
    require_same_device(where, first=first.coords, second=second.coords)
    if first.resolution != second.resolution or first.batch_size != second.batch_size:
        raise RangeError(f"{where}: both grids must have one resolution and batch size; got {first!r} and {second!r}.")
    first.frame.require_close(where, second.frame)
