"""Compiled for the CPU: no sort. Rows of a grid are sorted, so corners come out of merging sorted runs.

A column is a run of cells with the same sample, x and y. The columns of corners are the merge of the columns of cells with
themselves moved by 0 or 1 along x and y; the corners of such a column are the merge of at most four columns of cells, each with
itself moved by 0 or 1 along z. Both merges meet each cell at its eight corners once, so threads never write to one place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._corners import CubeCorners, strides
from ._numba_transfer import spread, sum_at_corners
from ._transfer import Transfer

BLOCK = 256
"""Columns of corners that one thread takes at a time."""
CHUNK = 1 << 15
"""Corners that one thread looks ahead from at a time."""
FAR = np.int64(1) << 62


def run(kind: str, *args: Any) -> Any:
    """See `_reference.run`."""
    if kind == "sum":
        return Transfer.apply(*args, sum_at_corners, spread)
    if kind == "spread":
        return Transfer.apply(*args, spread, sum_at_corners)
    return build(*args) if kind == "build" else neighbors(*args)


def build(grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """See `_reference.build`."""
    coords = grid.coords.numpy()
    keys, starts = _columns(coords)
    corner_keys, sources = _merge_columns(keys)
    counts = np.zeros((len(corner_keys) + BLOCK - 1) // BLOCK + 1, np.int64)
    _count(coords, starts, sources, counts)
    np.cumsum(counts, out=counts)
    corners = torch.empty((int(counts[-1]), 4), dtype=torch.int32)
    index = torch.empty((len(grid), 8), dtype=torch.int32)
    _write(coords, starts, corner_keys, sources, counts, corners.numpy(), index.numpy())
    return corners, index


def neighbors(corners: CubeCorners) -> Tensor:
    """See `_reference.neighbors`."""
    ahead = torch.empty((len(corners), 3), dtype=torch.int64)
    limits = np.array(corners.resolution, dtype=np.int64)
    _look_ahead(corners.coords.numpy(), np.array(strides(corners.resolution), dtype=np.int64), limits, ahead.numpy())
    return ahead


@njit(cache=True, nogil=True, error_model="numpy")
def _columns(coords):  # pyright: ignore
    """Keys (sample, x, y in 17 bits each) of the columns of cells, ascending, and their first rows, with an end."""
    n, count = len(coords), 0
    for i in range(n):
        count += i == 0 or coords[i, 0] != coords[i - 1, 0] or coords[i, 1] != coords[i - 1, 1] or coords[i, 2] != coords[i - 1, 2]
    keys, starts = np.empty(count, np.int64), np.empty(count + 1, np.int64)
    at = 0
    for i in range(n):
        if i == 0 or coords[i, 0] != coords[i - 1, 0] or coords[i, 1] != coords[i - 1, 1] or coords[i, 2] != coords[i - 1, 2]:
            keys[at] = (np.int64(coords[i, 0]) << 34) | (np.int64(coords[i, 1]) << 17) | coords[i, 2]
            starts[at] = i
            at += 1
    starts[count] = n
    return keys, starts


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_columns(keys):  # pyright: ignore
    """Keys of the columns of corners, and for each the four columns of cells around it, -1 where there is none.

    Entry d = dx | dy << 1 of the four is the column whose cells have the corner ahead by dx and dy.
    """
    n = len(keys)
    found, sources = np.empty(4 * n, np.int64), np.empty((4 * n, 4), np.int32)
    heads = np.zeros(4, np.int64)
    at = 0
    while True:
        least = FAR
        for d in range(4):
            if heads[d] < n:
                least = min(least, keys[heads[d]] + (np.int64(d & 1) << 17) + (d >> 1))
        if least == FAR:
            return found[:at].copy(), sources[:at].copy()
        found[at] = least
        for d in range(4):
            if heads[d] < n and keys[heads[d]] + (np.int64(d & 1) << 17) + (d >> 1) == least:
                sources[at, d] = heads[d]
                heads[d] += 1
            else:
                sources[at, d] = -1
        at += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _open(starts, sources, c, rows, ends, above):  # pyright: ignore
    """Begin the merge of a column of corners: the next cell of each of the four columns, and where each ends."""
    for d in range(4):
        column = sources[c, d]
        rows[d] = starts[column] if column >= 0 else 0
        ends[d] = starts[column + 1] if column >= 0 else 0
        above[d] = FAR  # z of the upper corner of the cell before, while it has not been met


@njit(cache=True, nogil=True, error_model="numpy")
def _next_z(coords, rows, ends, above):  # pyright: ignore
    """z of the next corner, FAR after the last."""
    least = FAR
    for d in range(4):
        least = min(least, above[d])
        if rows[d] < ends[d]:
            least = min(least, np.int64(coords[rows[d], 3]))
    return least


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(coords, starts, sources, counts):  # pyright: ignore
    """Corners of each block of columns."""
    for block in prange(len(counts) - 1):
        rows, ends, above = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
        total = 0
        for c in range(block * BLOCK, min(len(sources), (block + 1) * BLOCK)):
            _open(starts, sources, c, rows, ends, above)
            z = _next_z(coords, rows, ends, above)
            while z != FAR:
                total += 1
                for d in range(4):
                    if above[d] == z:
                        above[d] = FAR
                    if rows[d] < ends[d] and coords[rows[d], 3] == z:
                        above[d] = z + 1
                        rows[d] += 1
                z = _next_z(coords, rows, ends, above)
        counts[block + 1] = total


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _write(coords, starts, keys, sources, counts, corners, index):  # pyright: ignore
    """The corners in order, and their rows in the cells that have them."""
    low = (np.int64(1) << 17) - 1
    for block in prange(len(counts) - 1):
        rows, ends, above = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
        at = counts[block]
        for c in range(block * BLOCK, min(len(sources), (block + 1) * BLOCK)):
            _open(starts, sources, c, rows, ends, above)
            z = _next_z(coords, rows, ends, above)
            while z != FAR:
                corners[at, 0], corners[at, 1], corners[at, 2], corners[at, 3] = keys[c] >> 34, (keys[c] >> 17) & low, keys[c] & low, z
                for d in range(4):
                    if above[d] == z:
                        index[rows[d] - 1, d | 4] = at
                        above[d] = FAR
                    if rows[d] < ends[d] and coords[rows[d], 3] == z:
                        index[rows[d], d] = at
                        above[d] = z + 1
                        rows[d] += 1
                at += 1
                z = _next_z(coords, rows, ends, above)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _key(coords, i, strides):  # pyright: ignore
    """`_corners.corner_keys` of one row; larger than any key beyond the last row."""
    if i >= len(coords):
        return FAR
    return coords[i, 0] * strides[0] + coords[i, 1] * strides[1] + coords[i, 2] * strides[2] + coords[i, 3]


@njit(cache=True, nogil=True, error_model="numpy")
def _search(coords, strides, key):  # pyright: ignore
    """First row whose key is not less."""
    low, high = 0, len(coords)
    while low < high:
        middle = (low + high) >> 1
        if _key(coords, middle, strides) < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _look_ahead(coords, strides, limits, ahead):  # pyright: ignore
    """Rows that are sorted stay sorted when all move by one step, so one pointer a step walks along."""
    for chunk in prange((len(coords) + CHUNK - 1) // CHUNK):
        start, end = chunk * CHUNK, min(len(coords), (chunk + 1) * CHUNK)
        for axis in range(3):
            step = strides[axis + 1] if axis < 2 else 1
            row = _search(coords, strides, _key(coords, start, strides) + step)
            here = _key(coords, row, strides)
            for i in range(start, end):
                key = _key(coords, i, strides) + step
                while here < key:
                    row += 1
                    here = _key(coords, row, strides)
                # a step over the border would carry into the next axis
                ahead[i, axis] = row if here == key and coords[i, axis + 1] < limits[axis] else -1
