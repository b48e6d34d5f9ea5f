"""Block index compiled for the CPU.

`row_at` and `row_near` are building blocks for other compiled engines. They take the arrays of an index one by one, in the
order in which `arrays` gives them. They are inlined by force: as calls with three arrays they take three times as long.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from voxgen.core.errors import DuplicateError, RangeError
from voxgen.core.grid import VoxelGrid

from . import block_index
from ._index import LEAF_CELLS, BlockIndex, block_counts, table_entries

I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]

PARTS = 64
"""Pieces that the rows are dealt in; more than there are threads, so that uneven pieces level out."""


def build_index(grid: VoxelGrid) -> BlockIndex:
    """See `block_index`."""
    entries = table_entries(grid)
    if not entries:
        from ._torch import build_index as build_with_sort

        return build_with_sort(grid)
    nx, ny, nz = block_counts(grid)
    coords = grid.coords.numpy()
    limits = np.array([grid.batch_size, *grid.resolution], dtype=np.int32)
    bounds = _slab_bounds(coords, PARTS)
    table = torch.zeros(entries, dtype=torch.int32)
    counts, bad = _mark_blocks(coords, limits, bounds, table.numpy(), nx, ny, nz)
    if (bad >= 0).any():
        _raise_broken(grid, int(bad[bad >= 0].min()))
    first = np.concatenate((np.zeros(1, dtype=np.int64), counts.cumsum()))
    leaves = torch.empty((int(first[-1]) + 1) * LEAF_CELLS, dtype=torch.int32)  # each leaf is filled where it is numbered
    leaves[:LEAF_CELLS] = -1
    blocks = torch.empty(int(first[-1]), dtype=torch.int64)
    _fill_leaves(coords, bounds, first, table.numpy(), blocks.numpy(), leaves.numpy(), nx, ny, nz)
    return BlockIndex(leaves, blocks, table, (nx, ny, nz), grid.batch_size)


def lookup(grid: VoxelGrid, coords: Tensor) -> Tensor:
    """See `lookup_cells`."""
    index = block_index(grid, backend="numba")
    rows = torch.empty(len(coords), dtype=torch.int32)
    _lookup(*arrays(index), coords.contiguous().numpy(), rows.numpy())
    return rows


def arrays(index: BlockIndex) -> tuple[I32, I64, I32, int, int, int, int]:
    """The arguments `row_at` and `row_near` begin with: table (empty if there is none), blocks, leaves, counts, batch size."""
    table = np.zeros(0, dtype=np.int32) if index.table is None else index.table.numpy()
    return table, index.blocks.numpy(), index.leaves.numpy(), *index.counts, index.batch_size


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def row_at(table, blocks, leaves, nx, ny, nz, batch, b, x, y, z):  # pyright: ignore
    """Row of cell [b, x, y, z], -1 if it does not exist. The cell may be anywhere."""
    bx = (x >> 3) + 1
    by = (y >> 3) + 1
    bz = (z >> 3) + 1
    inside = (b >= 0) and (b < batch) and (bx > 0) and (bx < nx) and (by > 0) and (by < ny) and (bz > 0) and (bz < nz)
    return row_near(table, blocks, leaves, nx, ny, nz, batch, b, x, y, z) if inside else np.int32(-1)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def row_near(table, blocks, leaves, nx, ny, nz, batch, b, x, y, z):  # pyright: ignore
    """As `row_at`, without a test of bounds: the sample must exist, and the cell lie at most 8 cells outside the grid."""
    address = ((np.int64(b) * nx + ((x >> 3) + 1)) * ny + ((y >> 3) + 1)) * nz + ((z >> 3) + 1)
    leaf = np.int64(table[address]) if len(table) > 0 else search_block(blocks, address)
    return leaves[(leaf << 9) + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)]


@njit(cache=True, nogil=True, error_model="numpy")
def search_block(blocks, address):  # pyright: ignore
    """Leaf of a block by binary search, 0 if it is empty."""
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) >> 1
        if blocks[middle] < address:
            low = middle + 1
        else:
            high = middle
    return low + 1 if low < len(blocks) and blocks[low] == address else 0


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _lookup(table, blocks, leaves, nx, ny, nz, batch, coords, rows):  # pyright: ignore
    for i in prange(len(coords)):
        b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
        rows[i] = row_at(table, blocks, leaves, nx, ny, nz, batch, b, x, y, z)


@njit(cache=True, nogil=True, error_model="numpy")
def _slab(coords, i):  # pyright: ignore
    """Rows of one sample and one layer of blocks along x: contiguous, because rows are sorted."""
    return (np.int64(coords[i, 0]) << 32) | np.int64(coords[i, 1] >> 3)


@njit(cache=True, nogil=True, error_model="numpy")
def _slab_bounds(coords, parts):  # pyright: ignore
    """(parts + 1,) rows that cut the grid in nearly equal pieces between slabs, so that no two pieces share a block."""
    n = len(coords)
    bounds = np.zeros(parts + 1, dtype=np.int64)
    for p in range(1, parts):
        low, high = bounds[p - 1], n * p // parts
        if high == 0:
            continue
        wanted = _slab(coords, high)
        while low < high:
            middle = (low + high) >> 1
            if _slab(coords, middle) < wanted:
                low = middle + 1
            else:
                high = middle
        bounds[p] = low
    bounds[parts] = n
    return bounds


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _mark_blocks(coords, limits, bounds, table, nx, ny, nz):  # pyright: ignore
    """Put 1 in the table for each occupied block. By piece: how many those are, and the first row out of order or range, or -1."""
    parts = len(bounds) - 1
    counts = np.zeros(parts, dtype=np.int64)
    bad = np.full(parts, -1, dtype=np.int64)
    for p in prange(parts):
        found = 0
        for i in range(bounds[p], bounds[p + 1]):
            b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
            inside = (b >= 0) & (x >= 0) & (y >= 0) & (z >= 0) & (b < limits[0]) & (x < limits[1]) & (y < limits[2]) & (z < limits[3])
            if not inside or (i > 0 and row_key(coords, i - 1) >= row_key(coords, i)):
                bad[p] = i
                break
            address = ((np.int64(b) * nx + ((x >> 3) + 1)) * ny + ((y >> 3) + 1)) * nz + ((z >> 3) + 1)
            if table[address] == 0:
                table[address] = 1
                found += 1
        counts[p] = found
    return counts, bad


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def row_key(coords, i):  # pyright: ignore
    """`core.coords.pack_keys` of one row: keys sort like rows."""
    return (((np.int64(coords[i, 0]) << 16 | coords[i, 1]) << 16) | coords[i, 2]) << 16 | coords[i, 3]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill_leaves(coords, bounds, first, table, blocks, leaves, nx, ny, nz):  # pyright: ignore
    """Number the marked blocks in the order of the table, clear their leaves, and write the rows."""
    for p in prange(len(bounds) - 1):
        start, end = bounds[p], bounds[p + 1]
        if start < end:
            leaf = first[p]
            plane = np.int64(ny) * nz
            low = (np.int64(coords[start, 0]) * nx + ((coords[start, 1] >> 3) + 1)) * plane
            high = (np.int64(coords[end - 1, 0]) * nx + ((coords[end - 1, 1] >> 3) + 2)) * plane
            for address in range(low, high):
                if table[address] != 0:
                    blocks[leaf] = address
                    leaf += 1
                    table[address] = leaf
                    leaves[leaf << 9 : (leaf + 1) << 9] = -1
            for i in range(start, end):
                b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
                address = ((np.int64(b) * nx + ((x >> 3) + 1)) * ny + ((y >> 3) + 1)) * nz + ((z >> 3) + 1)
                leaves[(np.int64(table[address]) << 9) + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)] = i


def _raise_broken(grid: VoxelGrid, row: int) -> None:
    cell = grid.coords[row].tolist()
    if row > 0 and torch.equal(grid.coords[row], grid.coords[row - 1]):
        raise DuplicateError(f"block_index: cells of a grid must be unique; [batch, x, y, z] = {cell} comes twice. Use VoxelGrid.build.")
    raise RangeError(
        f"block_index: cells of a grid must lie inside it and be sorted; row {row} = {cell} of {grid!r} is not. Use VoxelGrid.build."
    )
