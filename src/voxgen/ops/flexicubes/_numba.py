"""Compiled for the CPU: cells on threads, counted first and written then, each where it belongs."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._numba import arrays, row_near

from ._numba_place import Place
from ._problem import Problem, Topology
from ._table import AROUND, EDGES, OWN_EDGES, face_step, table

BLOCK = 4096
"""Cells that one thread takes at a time."""
_STEPS = np.array([[step for step, _ in around] for around in AROUND], dtype=np.int64)
_AROUND_EDGES = np.array([[edge for _, edge in around] for around in AROUND], dtype=np.int64)
_ENDS = np.array([EDGES[edge] for edge in OWN_EDGES], dtype=np.int64)
_FACE_STEPS = np.array([face_step(face) for face in range(6)], dtype=np.int64)


def extract(problem: Problem) -> tuple[Topology, Tensor]:
    """See `_problem.Extract`."""
    found = topology(problem)
    return found, Place.apply(problem.sdf, problem.positions, problem.alpha, problem.beta, problem.corners, found.cell, found.edges)


def topology(problem: Problem) -> Topology:
    """See `_reference.topology`."""
    known, n = table(), len(problem.grid)
    place = arrays(block_index(problem.grid, backend="numba"))
    coords, index = problem.grid.coords.numpy(), problem.corners.index.numpy()
    sdf = problem.sdf.detach().contiguous().numpy()
    keep = np.zeros(0, np.bool_) if problem.keep is None else problem.keep.contiguous().numpy()
    signs = np.empty(n, np.uint8)
    _classify(index, sdf < 0, signs)
    case = torch.empty(n, dtype=torch.uint8)
    _replace(*place, coords, signs, known.direction, case.numpy())
    counts = np.zeros(((n + BLOCK - 1) // BLOCK + 1, 2), np.int64)
    mask = np.empty(n, np.uint8)
    _count(*place, coords, signs, case.numpy(), keep, known.counts, mask, counts)
    np.cumsum(counts, 0, out=counts)
    vertices, quads = (int(c) for c in counts[-1])
    first = np.empty(n, np.int32)
    cell, edges = torch.empty(vertices, dtype=torch.int32), torch.empty(vertices, dtype=torch.int16)
    _write_vertices(case.numpy(), keep, known.counts, known.groups, counts, first, cell.numpy(), edges.numpy())
    corners, owner, axis = (
        torch.empty((quads, 4), dtype=torch.int32),
        torch.empty(quads, dtype=torch.int32),
        torch.empty(quads, dtype=torch.uint8),
    )
    ahead = (sdf > 0) if problem.strict else (sdf >= 0)
    _write_quads(
        *place, coords, index, ahead, case.numpy(), mask, first, known.member, counts, corners.numpy(), owner.numpy(), axis.numpy()
    )
    return Topology(case, cell, edges, corners, owner, axis)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _classify(index, inside, signs):  # pyright: ignore
    """Bit k of a cell: its corner k is inside."""
    for i in prange(len(signs)):
        bits = 0
        for k in range(8):
            bits |= np.int64(inside[index[i, k]]) << k
        signs[i] = bits


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _replace(table, blocks, leaves, nx, ny, nz, samples, coords, signs, direction, case):  # pyright: ignore
    """See `_reference._replaced`."""
    for i in prange(len(case)):
        case[i] = signs[i]
        face = direction[signs[i]]
        if face >= 0:
            b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
            dx, dy, dz = _FACE_STEPS[face, 0], _FACE_STEPS[face, 1], _FACE_STEPS[face, 2]
            other = row_near(table, blocks, leaves, nx, ny, nz, samples, b, x + dx, y + dy, z + dz)
            if other >= 0 and direction[signs[other]] >= 0:
                case[i] = 255 - signs[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _cells_around(table, blocks, leaves, nx, ny, nz, samples, coords, keep, i, axis, rows):  # pyright: ignore
    """Rows of the four cells around an edge at corner 0 of cell i; False if one is missing."""
    b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
    for k in range(4):
        dx, dy, dz = _STEPS[axis, k, 0], _STEPS[axis, k, 1], _STEPS[axis, k, 2]
        rows[k] = row_near(table, blocks, leaves, nx, ny, nz, samples, b, x + dx, y + dy, z + dz)
        if rows[k] < 0 or (len(keep) > 0 and not keep[rows[k]]):
            return False
    return True


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(table, blocks, leaves, nx, ny, nz, samples, coords, signs, case, keep, vertices, mask, counts):  # pyright: ignore
    """Bit a of a cell's mask: its edge at corner 0 along axis a has a quad. And how many vertices and quads each block has."""
    for block in prange(len(counts) - 1):
        rows = np.empty(4, np.int64)
        total, quads = 0, 0
        for i in range(block * BLOCK, min(len(case), (block + 1) * BLOCK)):
            mask[i] = 0
            if vertices[case[i]] == 0 or (len(keep) > 0 and not keep[i]):
                continue
            total += vertices[case[i]]
            for axis in range(3):
                crossed = ((signs[i] >> _ENDS[axis, 0]) ^ (signs[i] >> _ENDS[axis, 1])) & 1
                if crossed and _cells_around(table, blocks, leaves, nx, ny, nz, samples, coords, keep, i, axis, rows):
                    mask[i] |= 1 << axis
                    quads += 1
        counts[block + 1, 0], counts[block + 1, 1] = total, quads


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _write_vertices(case, keep, vertices, groups, counts, first, cell, edges):  # pyright: ignore
    """Cell and edges of each vertex, and the number of each cell's first one."""
    for block in prange(len(counts) - 1):
        at = counts[block, 0]
        for i in range(block * BLOCK, min(len(case), (block + 1) * BLOCK)):
            first[i] = at
            if len(keep) > 0 and not keep[i]:
                continue
            for j in range(vertices[case[i]]):
                cell[at], edges[at] = i, groups[case[i], j]
                at += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _write_quads(table, blocks, leaves, nx, ny, nz, samples, coords, index, ahead, case, mask, first, member, counts, quads, owner, axes):  # pyright: ignore
    """The quads, wound so that their normals point to positive values."""
    none = np.zeros(0, np.bool_)
    for block in prange(len(counts) - 1):
        rows, q = np.empty(4, np.int64), np.empty(4, np.int32)
        at = counts[block, 1]
        for i in range(block * BLOCK, min(len(case), (block + 1) * BLOCK)):
            for axis in range(3):
                if not (mask[i] >> axis) & 1:
                    continue
                _cells_around(table, blocks, leaves, nx, ny, nz, samples, coords, none, i, axis, rows)
                for k in range(4):
                    q[k] = first[rows[k]] + member[case[rows[k]], _AROUND_EDGES[axis, k]]
                if ahead[index[i, _ENDS[axis, 0]]]:
                    quads[at, 0], quads[at, 1], quads[at, 2], quads[at, 3] = q[0], q[1], q[3], q[2]
                else:
                    quads[at, 0], quads[at, 1], quads[at, 2], quads[at, 3] = q[2], q[3], q[1], q[0]
                owner[at], axes[at] = i, axis
                at += 1
