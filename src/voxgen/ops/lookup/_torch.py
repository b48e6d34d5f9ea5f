"""Block index with plain torch operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.errors import DuplicateError
from voxgen.core.grid import VoxelGrid

from . import block_index
from ._index import BLOCK_BITS, LEAF_BITS, LEAF_CELLS, BlockIndex, block_counts, table_entries

CHUNK = 1 << 18
"""Cells looked up at once on a CPU, so that the int64 addresses stay in its cache."""


def build_index(grid: VoxelGrid) -> BlockIndex:
    """See `block_index`. Cells may come in any order here."""
    counts = block_counts(grid)
    b, x, y, z = grid.coords.unbind(1)
    address = _address(counts, b, x >> BLOCK_BITS, y >> BLOCK_BITS, z >> BLOCK_BITS)
    entries = table_entries(grid)
    if entries:
        table = torch.zeros(entries, dtype=torch.int32, device=grid.device)
        table[address] = 1
        blocks = table.nonzero()[:, 0]
        table[blocks] = torch.arange(1, len(blocks) + 1, dtype=torch.int32, device=grid.device)
        leaf = table[address].long()
    else:
        table = None
        blocks, position = address.unique(return_inverse=True)
        leaf = position + 1
    leaves = torch.full(((len(blocks) + 1) * LEAF_CELLS,), -1, dtype=torch.int32, device=grid.device)
    slot = (leaf << LEAF_BITS) | _place(x, y, z)
    rows = torch.arange(len(grid), dtype=torch.int32, device=grid.device)
    leaves[slot] = rows
    if not torch.equal(leaves[slot], rows):  # two rows wrote to one place, and one of them lost
        cell = grid.coords[leaves[slot] != rows][0].tolist()
        raise DuplicateError(f"block_index: cells of a grid must be unique; [batch, x, y, z] = {cell} comes twice. Use VoxelGrid.build.")
    return BlockIndex(leaves, blocks, table, counts, grid.batch_size)


def lookup(grid: VoxelGrid, coords: Tensor) -> Tensor:
    """See `lookup_cells`."""
    index = block_index(grid, backend="torch")
    if grid.batch_size == 0:
        return torch.full((len(coords),), -1, dtype=torch.int32, device=coords.device)
    step = CHUNK if coords.device.type == "cpu" else max(len(coords), 1)
    parts = [_rows_anywhere(index, part) for part in coords.split(step)]
    return torch.cat(parts)


def rows_near(index: BlockIndex, b: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Rows (int32, -1 absent) of cells at most 8 cells outside the grid, of existing samples.

    Arguments are integer tensors of one shape. This is the quick form for neighbours of cells that are in the grid.
    """
    return _rows(index, b, x >> BLOCK_BITS, y >> BLOCK_BITS, z >> BLOCK_BITS, _place(x, y, z))


def _rows_anywhere(index: BlockIndex, coords: Tensor) -> Tensor:
    """As `rows_near`, for any cells (n, 4): those far outside are moved to a guard block, which is empty."""
    b, x, y, z = coords.unbind(1)
    nx, ny, nz = index.counts
    bx, by, bz = ((v >> BLOCK_BITS).clamp_(-1, n - 2) for v, n in ((x, nx), (y, ny), (z, nz)))
    bx = torch.where((b >= 0) & (b < index.batch_size), bx, -1)
    return _rows(index, b.clamp(0, index.batch_size - 1), bx, by, bz, _place(x, y, z))


def _rows(index: BlockIndex, b: Tensor, bx: Tensor, by: Tensor, bz: Tensor, place: Tensor) -> Tensor:
    address = _address(index.counts, b, bx, by, bz)
    if index.table is not None:
        leaf = index.table[address].long()
    elif index.num_blocks == 0:
        leaf = torch.zeros_like(address)
    else:
        position = torch.searchsorted(index.blocks, address).clamp_(max=index.num_blocks - 1)
        leaf = torch.where(index.blocks[position] == address, position + 1, 0)
    return index.leaves[(leaf << LEAF_BITS) | place]


def _address(counts: tuple[int, int, int], b: Tensor, bx: Tensor, by: Tensor, bz: Tensor) -> Tensor:
    nx, ny, nz = counts
    return ((b.long() * nx + (bx + 1)) * ny + (by + 1)) * nz + (bz + 1)


def _place(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return ((x & 7) << 2 * BLOCK_BITS) | ((y & 7) << BLOCK_BITS) | (z & 7)
