"""Compiled for the CPU: cubes on threads, counted first and written then, each where it belongs."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._numba import arrays, row_near

from ._table import EDGES, FACES, table

BLOCK = 4096
"""Rows that one thread takes at a time."""
INCOMPLETE = -1
_ENDS = np.array(EDGES, dtype=np.int64)
_FACES = np.array(FACES, dtype=np.int64)


def topology(grid: VoxelGrid, values: Tensor) -> tuple[Tensor, Tensor]:
    """See `_surface.Topology`."""
    n = len(grid)
    index = arrays(block_index(grid, backend="numba"))
    coords, at, known = grid.coords.numpy(), values.numpy(), table()
    code = np.empty(n, np.int16)
    mask = np.empty(n, np.uint8)
    counts = np.zeros(((n + BLOCK - 1) // BLOCK + 1, 2), np.int64)
    _classify(*index, coords, at, known.ambiguous, known.starts, code, counts)
    _mark(*index, coords, at, code, mask, counts)
    np.cumsum(counts, 0, out=counts)
    first = np.empty(n, np.int32)
    edges = torch.empty((int(counts[-1, 0]), 2), dtype=torch.int32)
    faces = torch.empty((int(counts[-1, 1]), 3), dtype=torch.int32)
    _write_edges(*index, coords, mask, counts, first, edges.numpy())
    _write_faces(*index, coords, code, mask, counts, first, known.starts, known.triangles, faces.numpy())
    return edges, faces


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _above(coords, i, row):  # pyright: ignore
    """The row after `row` if it is its neighbour along z, else -1. Rows are sorted, so no look-up is needed."""
    j = row + 1
    if row < 0 or j >= len(coords):
        return np.int64(-1)
    same = coords[j, 0] == coords[row, 0] and coords[j, 1] == coords[row, 1] and coords[j, 2] == coords[row, 2]
    return np.int64(j) if same and coords[j, 3] == coords[i, 3] + 1 else np.int64(-1)


@njit(cache=True, nogil=True, error_model="numpy")
def _corner_rows(table, blocks, leaves, nx, ny, nz, samples, coords, i, rows):  # pyright: ignore
    """Rows of the eight corners of the cube above cell i; False if one does not exist."""
    b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
    rows[0] = i
    for k in range(4):
        if k > 0:
            rows[2 * k] = row_near(table, blocks, leaves, nx, ny, nz, samples, b, x + (k >> 1), y + (k & 1), z)
        rows[2 * k + 1] = _above(coords, i, rows[2 * k])
        if rows[2 * k] < 0 or rows[2 * k + 1] < 0:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _joined(case, at, ambiguous):  # pyright: ignore
    """See `_reference._joined`; `ambiguous` are the faces to decide."""
    mask = 0
    for f in range(6):
        if (ambiguous >> f) & 1:
            a, b, c, d = _FACES[f, 0], _FACES[f, 1], _FACES[f, 2], _FACES[f, 3]
            first, second = at[a] * at[c], at[b] * at[d]
            if (first > second) if (case >> a) & 1 else (second > first):
                mask |= 1 << f
    return mask


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _classify(table, blocks, leaves, nx, ny, nz, samples, coords, values, ambiguous, starts, code, counts):  # pyright: ignore
    """64 · case + decisions of each cube, or INCOMPLETE; and the number of triangles of each block of cubes."""
    for block in prange(len(counts) - 1):
        rows, at = np.empty(8, np.int64), np.empty(8, values.dtype)
        total = 0
        for i in range(block * BLOCK, min(len(coords), (block + 1) * BLOCK)):
            if not _corner_rows(table, blocks, leaves, nx, ny, nz, samples, coords, i, rows):
                code[i] = INCOMPLETE
                continue
            case = 0
            for k in range(8):
                at[k] = values[rows[k]]
                case |= int(at[k] < 0) << k
            entry = case << 6
            if ambiguous[case]:
                entry |= _joined(case, at, ambiguous[case])
            code[i] = entry
            total += starts[entry + 1] - starts[entry]
        counts[block + 1, 1] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _upper_row(table, blocks, leaves, nx, ny, nz, samples, coords, i, axis):  # pyright: ignore
    """Row of the neighbour along an axis, or -1."""
    if axis == 2:
        return _above(coords, i, i)
    b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
    return np.int64(row_near(table, blocks, leaves, nx, ny, nz, samples, b, x + (axis == 0), y + (axis == 1), z))


@njit(cache=True, nogil=True, error_model="numpy")
def _in_a_cube(table, blocks, leaves, nx, ny, nz, samples, coords, i, axis, code):  # pyright: ignore
    """Whether one of the four cubes around the edge from cell i along an axis has all its corners."""
    b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
    for k in range(4):
        p, q = k >> 1, k & 1
        dx, dy, dz = (0, p, q) if axis == 0 else ((p, 0, q) if axis == 1 else (p, q, 0))
        row = row_near(table, blocks, leaves, nx, ny, nz, samples, b, x - dx, y - dy, z - dz)
        if row >= 0 and code[row] != INCOMPLETE:
            return True
    return False


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _mark(table, blocks, leaves, nx, ny, nz, samples, coords, values, code, mask, counts):  # pyright: ignore
    """Bit a of a row's mask: its edge along axis a carries a vertex. And the number of vertices of each block of rows."""
    for block in prange(len(counts) - 1):
        total = 0
        for i in range(block * BLOCK, min(len(coords), (block + 1) * BLOCK)):
            bits = 0
            for axis in range(3):
                upper = _upper_row(table, blocks, leaves, nx, ny, nz, samples, coords, i, axis)
                crossed = upper >= 0 and (values[i] < 0) != (values[upper] < 0)
                if crossed and _in_a_cube(table, blocks, leaves, nx, ny, nz, samples, coords, i, axis, code):
                    bits |= 1 << axis
                    total += 1
            mask[i] = bits
        counts[block + 1, 0] = total


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _write_edges(table, blocks, leaves, nx, ny, nz, samples, coords, mask, counts, first, edges):  # pyright: ignore
    """The crossed edges, and the number of each row's first one."""
    for block in prange(len(counts) - 1):
        at = counts[block, 0]
        for i in range(block * BLOCK, min(len(coords), (block + 1) * BLOCK)):
            first[i] = at
            for axis in range(3):
                if (mask[i] >> axis) & 1:
                    edges[at, 0] = i
                    edges[at, 1] = _upper_row(table, blocks, leaves, nx, ny, nz, samples, coords, i, axis)
                    at += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _write_faces(table, blocks, leaves, nx, ny, nz, samples, coords, code, mask, counts, first, starts, triangles, faces):  # pyright: ignore
    """The triangles of each cube that is cut."""
    for block in prange(len(counts) - 1):
        rows = np.empty(8, np.int64)
        at = counts[block, 1]
        for i in range(block * BLOCK, min(len(coords), (block + 1) * BLOCK)):
            entry = np.int64(code[i])
            if entry < 0 or starts[entry] == starts[entry + 1]:
                continue
            _corner_rows(table, blocks, leaves, nx, ny, nz, samples, coords, i, rows)
            for t in range(starts[entry], starts[entry + 1]):
                for k in range(3):
                    edge = np.int64(triangles[t, k])
                    row, axis = rows[_ENDS[edge, 0]], edge >> 2
                    lower = mask[row] & ((1 << axis) - 1)
                    faces[at, k] = first[row] + (lower & 1) + (lower >> 1)
                at += 1
