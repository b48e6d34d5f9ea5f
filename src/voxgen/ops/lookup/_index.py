"""BlockIndex: the two-level spatial index of a grid, and its layout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.grid import VoxelGrid

BLOCK_BITS = 3
"""A block is a cube of 2³ = 8 cells a side."""
LEAF_BITS = 3 * BLOCK_BITS
LEAF_CELLS = 1 << LEAF_BITS
GUARD_CELLS = 1 << BLOCK_BITS
"""Offsets of up to this many cells from a cell of the grid need no test of bounds: one empty block lies all around."""
MAX_ROWS = (1 << 31) - 1
TABLE_LIMIT = 256 << 20
"""Bytes. A table that would be larger is replaced by the sorted addresses of the occupied blocks."""


@dataclass(frozen=True, eq=False)
class BlockIndex:
    """Cells of a grid by blocks of 8³.

    A block (b, X, Y, Z) = (batch, x >> 3, y >> 3, z >> 3) has the address `((b·nx + X+1)·ny + Y+1)·nz + Z+1` in int64,
    where `counts` = (nx, ny, nz) includes one empty guard block on either side of each axis. Occupied blocks have the
    leaves 1, 2, … in the order of their addresses; leaf 0 is that of every empty block. A cell's place in its leaf is
    `(x & 7) << 6 | (y & 7) << 3 | (z & 7)`.

    Attributes:
        leaves: ((k + 1) · 512,) int32, rows of the grid, -1 where there is no cell; the first 512 entries are all -1.
        blocks: (k,) int64 ascending addresses of the occupied blocks.
        table: (batch_size · nx · ny · nz,) int32 leaf of each address, 0 = empty; None where that would exceed
            `TABLE_LIMIT` bytes: then the leaf is found by a binary search in `blocks`.
        counts: blocks along x, y, z, guards included.
        batch_size: of the grid.
    Memory: 2 KB a block (a surface has about 68 cells in each, so 30 bytes a cell), and the table: 8.8 MB at 1024³.
    """

    leaves: Tensor
    blocks: Tensor
    table: Tensor | None
    counts: Int3
    batch_size: int

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)


def block_counts(grid: VoxelGrid) -> Int3:
    """Blocks along x, y, z, guards included."""
    x, y, z = (((r - 1) >> BLOCK_BITS) + 3 for r in grid.resolution)
    return x, y, z


def table_entries(grid: VoxelGrid) -> int:
    """Length of the dense table; 0 if it would be too large."""
    nx, ny, nz = block_counts(grid)
    entries = grid.batch_size * nx * ny * nz
    return entries if 4 * entries <= TABLE_LIMIT else 0
