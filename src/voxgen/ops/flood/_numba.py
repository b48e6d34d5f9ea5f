"""Compiled for the CPU: union-find over the gaps between walls of each lattice column."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core import VoxelGrid


def flood(wall: VoxelGrid, cells: Tensor) -> Tensor:
    """See `voxgen.ops.flood.flood`."""
    x, y, z = wall.resolution
    columns = np.arange(wall.batch_size * x * y + 1)
    b, i, j, height = wall.coords.long().numpy().T
    begins = np.searchsorted((b * x + i) * y + j, columns)
    heights = height.astype(np.int32)
    parent = _join(begins, heights, wall.batch_size, x, y, z)
    reached = np.empty(len(cells), np.bool_)
    _answer(begins, heights, parent, cells.contiguous().numpy(), x, y, reached)
    return torch.from_numpy(reached)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _gap(begins, heights, column, k, top):  # pyright: ignore
    """First and last free cell of gap k of a column, below its k-th wall cell; empty if the last is less."""
    first, count = begins[column], begins[column + 1] - begins[column]
    low = heights[first + k - 1] + 1 if k > 0 else 0
    high = heights[first + k] - 1 if k < count else top - 1
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def _root(parent, node):  # pyright: ignore
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True, error_model="numpy")
def _unite(parent, one, other):  # pyright: ignore
    """The lower number leads; node 0 is the water."""
    a, b = _root(parent, one), _root(parent, other)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@njit(cache=True, nogil=True, error_model="numpy")
def _join(begins, heights, samples, nx, ny, nz):  # pyright: ignore
    """The leader of each gap; gap k of a column is node 1 + column + (wall cells before it) + k."""
    parent = np.arange(len(begins) + len(heights))
    for column in range(samples * nx * ny):
        x, y = column // ny % nx, column % ny
        border = x == 0 or y == 0 or x == nx - 1 or y == ny - 1
        node = 1 + column + begins[column]
        count = begins[column + 1] - begins[column] + 1
        for k in range(count):
            low, high = _gap(begins, heights, column, k, nz)
            if low <= high and (border or low == 0 or high == nz - 1):
                _unite(parent, 0, node + k)
        for step in (1, ny):
            if (y if step == 1 else x) == 0:
                continue
            other = column - step
            others = 1 + other + begins[other]
            ends = begins[other + 1] - begins[other] + 1
            i, j = 0, 0
            while i < count and j < ends:
                low, high = _gap(begins, heights, column, i, nz)
                below, above = _gap(begins, heights, other, j, nz)
                if max(low, below) <= min(high, above):
                    _unite(parent, node + i, others + j)
                if high <= above:
                    i += 1
                else:
                    j += 1
    for node in range(len(parent)):
        parent[node] = _root(parent, node)
    return parent


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _answer(begins, heights, parent, cells, nx, ny, reached):  # pyright: ignore
    for i in prange(len(cells)):
        column = (np.int64(cells[i, 0]) * nx + cells[i, 1]) * ny + cells[i, 2]
        first, last = begins[column], begins[column + 1]
        k = np.searchsorted(heights[first:last], cells[i, 3])
        wall = first + k < last and heights[first + k] == cells[i, 3]
        reached[i] = not wall and parent[1 + column + first + k] == 0
