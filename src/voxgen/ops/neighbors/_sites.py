"""Where a neighbour table has outputs."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.core.memory import require_memory
from voxgen.ops.grid_sets import parents

from ._key import NeighborKey

OFFSET_BYTES = 256
"""What the list of offsets takes for each."""


def output_grid(grid: VoxelGrid, key: NeighborKey) -> VoxelGrid:
    """The outputs of a table whose outputs nobody gave."""
    if not key.transposed and key.sites == "floor":
        return grid if key.stride == (1, 1, 1) else parents(grid, key.stride)
    resolution = key.output_resolution(grid.resolution)
    if min(resolution) < 1:
        raise RangeError(f"neighbor_table: no window of {key} fits in a grid of resolution {grid.resolution}. Use more padding.")
    if max(resolution) > MAX_RESOLUTION:
        raise RangeError(
            f"neighbor_table: the outputs would have resolution {resolution}; at most {MAX_RESOLUTION} cells an axis are possible."
        )
    remedy = "Give out_grid, use a smaller kernel_size, or split the batch."
    require_memory("neighbor_table", (16 * len(grid) + OFFSET_BYTES) * key.volume, grid.device, remedy)
    reached = _reached_by_scattering(grid, key, resolution) if key.transposed else _windows_that_touch(grid, key, resolution)
    frame = grid.frame.refine(key.stride) if key.transposed else grid.frame.coarsen(key.stride)
    return VoxelGrid.from_sorted(unpack_keys(reached), resolution=resolution, batch_size=grid.batch_size, frame=frame)


def _reached_by_scattering(grid: VoxelGrid, key: NeighborKey, resolution: Int3) -> Tensor:
    """Keys of all cells `stride·o − padding + dilation·k` that lie in the finer grid."""
    start = grid.cells * _row(key.stride, grid) - _row(key.padding, grid)
    found = [_keys_inside(grid.batch, start + _row(shift, grid), resolution) for shift in _offsets(key)]
    return torch.cat(found).unique()


def _windows_that_touch(grid: VoxelGrid, key: NeighborKey, resolution: Int3) -> Tensor:
    """Keys of all outputs o with `stride·o − padding + dilation·k` in the grid for some k."""
    stride = _row(key.stride, grid)
    start = grid.cells + _row(key.padding, grid)
    found = []
    for shift in _offsets(key):
        place = start - _row(shift, grid)
        fits = (place % stride == 0).all(1)
        found.append(_keys_inside(grid.batch[fits], (place // stride)[fits], resolution))
    return torch.cat(found).unique()


def _offsets(key: NeighborKey) -> list[Int3]:
    axes = [[d * i for i in range(k)] for k, d in zip(key.kernel_size, key.dilation, strict=True)]
    return [(x, y, z) for x, y, z in itertools.product(*axes)]


def _keys_inside(batch: Tensor, cells: Tensor, resolution: Int3) -> Tensor:
    limit = torch.tensor(resolution, dtype=torch.int32, device=cells.device)
    inside = ((cells >= 0) & (cells < limit)).all(1)
    return pack_keys(torch.cat((batch[inside, None], cells[inside]), 1))


def _row(values: Int3, grid: VoxelGrid) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=grid.device)
