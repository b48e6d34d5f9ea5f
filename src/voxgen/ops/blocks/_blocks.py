"""Blocks: the cells of a grid grouped by cubes of a lattice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.aliases import Coords, Int3, Offsets
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import CapacityError
from voxgen.core.grid import VoxelGrid

MAX_ROWS = 2**31 - 1


@dataclass(frozen=True)
class BlockKey:
    """What a partition is kept under on its grid."""

    size: Int3
    shift: Int3


@dataclass(frozen=True, eq=False)
class Blocks:
    """The non-empty blocks of a grid, and which rows are in each. Made by `partition`.

    A block holds the cells with one value of `(cell + shift) // size` in one sample. Blocks are numbered over the whole
    batch, in lexicographic order of [batch, X, Y, Z], so a number says the sample too.

    Attributes:
        size, shift: as given, along x, y, z.
        coords: (m, 4) int32 [batch, X, Y, Z] of each block, ascending.
        block: (n,) int32 block of each row of the grid.
        rows: (n,) int32 rows of the grid, block by block, ascending inside a block.
        starts: (m + 1,) int32 where each block begins in `rows`.
        offsets: (b + 1,) int64 first block of each sample.
        longest: cells of the fullest block, 0 without blocks.
    """

    size: Int3
    shift: Int3
    coords: Coords
    block: Int32[Tensor, " n"]
    rows: Int32[Tensor, " n"]
    starts: Int32[Tensor, " m+1"]
    offsets: Offsets
    longest: int

    def __len__(self) -> int:
        return len(self.coords)

    def __repr__(self) -> str:
        return f"Blocks({len(self)} blocks of {len(self.rows)} cells, size={self.size}, shift={self.shift}, longest={self.longest})"

    @property
    def counts(self) -> Int32[Tensor, " m"]:
        """(m,) int32 cells of each block, at least 1."""
        return self.starts.diff()

    @property
    def batch(self) -> Int32[Tensor, " m"]:
        """(m,) int32 sample of each block."""
        return self.coords[:, 0]

    def to_block_order(self, rows: Tensor) -> Tensor:
        """(n, ...) rows in the grid's order to block order, a copy. Differentiable."""
        return rows.index_select(0, self.rows)

    def from_block_order(self, rows: Tensor) -> Tensor:
        """The inverse of `to_block_order`. Differentiable."""
        return torch.empty_like(rows).index_copy(0, self.rows.long(), rows)


def partition(grid: VoxelGrid, size: int | Int3, shift: int | Int3 = 0) -> Blocks:
    """Group the cells of a grid by cubes of a lattice: block = (cell + shift) // size, in each sample apart.

    Args:
        grid: any number of cells.
        size: cells along each axis of a block, one number or three.
        shift: added to the cells first, so that the lattice moves back by it. Nothing wraps round: blocks at the border
            are smaller.
    Returns:
        Blocks. Built once for a grid, size and shift, and kept on the grid. Shifts that are equal modulo the size give
        the same blocks with other coordinates.
    Raises:
        RangeError: a size below 1 or a negative shift.   CapacityError: 2³¹ cells or more, or coordinates beyond 65,535.
    Empty grids and samples are legal: an empty sample has no block.   Batch: a block lies in one sample.
    Source: Direct3D-S2, selection blocks and window partition; differences: none.
    Example:
        >>> blocks = partition(grid, 8, shift=4)
        >>> sorted(blocks.rows.tolist()) == list(range(len(grid)))
        True
    """
    where = "partition"
    key = BlockKey(require_int3(where, "size", size, 1, MAX_RESOLUTION), require_int3(where, "shift", shift, 0, MAX_RESOLUTION))
    if len(grid) > MAX_ROWS:
        raise CapacityError(f"{where}: rows are int32, so a grid may have at most {MAX_ROWS} cells; got {len(grid)}. Split the batch.")
    if any((r - 1 + s) // m >= MAX_RESOLUTION for r, s, m in zip(grid.resolution, key.shift, key.size, strict=True)):
        raise CapacityError(f"{where}: blocks must have coordinates below {MAX_RESOLUTION}; shift {key.shift} moves them beyond.")
    return grid.cached(("blocks", key), lambda: _build(grid, key))


def _build(grid: VoxelGrid, key: BlockKey) -> Blocks:
    coords = grid.coords.long()
    shift = torch.tensor([0, *key.shift], device=grid.device)
    size = torch.tensor([1, *key.size], device=grid.device)
    sorted_keys, rows = torch.sort(pack_keys((coords + shift) // size), stable=True)
    keys, block_in_order, counts = torch.unique_consecutive(sorted_keys, return_inverse=True, return_counts=True)
    block = torch.empty(len(grid), dtype=torch.int32, device=grid.device)
    block[rows] = block_in_order.int()
    cells = unpack_keys(keys)
    samples = torch.arange(grid.batch_size + 1, dtype=torch.int32, device=grid.device)
    return Blocks(
        key.size,
        key.shift,
        cells,
        block,
        rows.int(),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int(),
        torch.searchsorted(cells[:, 0].contiguous(), samples),
        int(counts.max()) if len(counts) else 0,
    )
