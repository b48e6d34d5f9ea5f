"""Compiled CPU engine: bricks of cells on threads, in batches, then one move to the final order.

No sum is shared between threads and every sum has a fixed order (that of the triangles), so results do not depend on the
number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor
from tqdm import tqdm

from voxgen.ops.voxelize._bricks import BITS, SIDE, VOLUME, bin_triangles, lexicographic_rows

from ._kernel import add_crossings, add_edge, add_faces, minimise_cells, new_scratch
from ._prepare import Problem, nothing, touch_margin
from ._walk import bin_edges

BATCH = 1024
"""Bricks at a time. A batch has room for all cells of its bricks (15 bytes each) and touches only what it fills."""


def dual_grid(problem: Problem, progress: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `voxgen.ops.dual_grid.dual_grid`."""
    scene = problem.scene
    x, y, z = problem.scale().tolist()
    table = bin_triangles(scene)
    if len(table.bricks) == 0:  # compat: all of the mesh lies outside the box
        return nothing(scene.vertices.device)
    walks = bin_edges(problem, table)
    mesh = (scene.vertices.numpy(), scene.faces.numpy(), scene.voxel_size, (x, y, z), scene.resolution, scene.closed, touch_margin(scene))
    weights = (problem.face_weight, problem.boundary_weight, problem.regularization)
    edges = problem.edges.numpy()

    room = min(BATCH, len(table.bricks))
    local, dual, flags = np.empty((room, VOLUME), np.int16), np.empty((room, VOLUME, 3), np.float32), np.empty((room, VOLUME), np.uint8)
    offsets = np.zeros(len(table.bricks) + 1, np.int64)
    packed = []
    with tqdm(total=len(table.bricks), desc="dual grid", unit="brick", disable=not progress) as bar:
        for begin in range(0, len(table.bricks), BATCH):
            end = min(begin + BATCH, len(table.bricks))
            _solve_bricks(mesh, weights, edges, table, walks, begin, end, get_num_threads(), local, dual, flags, offsets[1:])
            np.cumsum(offsets[begin : end + 1], out=offsets[begin : end + 1])
            count = offsets[end] - offsets[begin]
            part = np.empty(count, np.int16), np.empty((count, 3), np.float32), np.empty(count, np.uint8)
            _pack(local, dual, flags, offsets[begin : end + 1], part)
            packed.append((begin, end, part))
            bar.update(end - begin)
    del local, dual, flags
    rows = lexicographic_rows(table.bricks, offsets, np.concatenate([part[0] for _, _, part in packed]), scene.resolution[1])
    total = offsets[-1]
    cells, out = np.empty((total, 3), np.int32), np.empty((total, 3), np.float32)
    crossed, sign = np.empty((total, 3), np.bool_), np.empty((total, 3), np.bool_)
    for begin, end, part in packed:
        _place(table.bricks, offsets, begin, end, part, rows, cells, out, crossed, sign)
    return torch.from_numpy(cells), torch.from_numpy(out), torch.from_numpy(crossed), torch.from_numpy(sign)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _solve_bricks(mesh, weights, edges, table, walks, begin, end, workers, local, dual, flags, counts):
    """Bricks begin to end: write the cells of brick b to row b - begin of the buffers, and how many there are to `counts`."""
    vertices, faces, size, scale, resolution, closed, margin = mesh
    bricks, offsets, items = table
    edge_offsets, entry_edge, entry_cell, entry_state = walks
    for worker in prange(workers):
        scratch = new_scratch()
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        for b in range(begin + worker, end, workers):
            for k in range(3):
                low[k] = bricks[b, k] * SIDE
                high[k] = min(low[k] + SIDE, resolution[k])
            mine = items[offsets[b] : offsets[b + 1]]
            active = add_crossings(vertices, faces, size, scale, resolution, closed, mine, low, high, scratch)
            if active > 0 and weights[0] > 0:
                add_faces(vertices, faces, size, scale, resolution, margin, mine, weights[0], low, high, scratch)
            if active > 0:
                for e in range(edge_offsets[b], edge_offsets[b + 1]):
                    edge, cell, state = edges[entry_edge[e]], entry_cell[e], entry_state[e]
                    add_edge(vertices, edge, size, scale, resolution, closed, weights[1], cell, state, low, high, scratch)
                minimise_cells(scale, weights[2], closed, scratch, local[b - begin], dual[b - begin], flags[b - begin])
            counts[b] = active


@njit(cache=True, nogil=True, parallel=True)
def _pack(local, dual, flags, offsets, part):
    """Close the gaps between the bricks of a batch. (Loops, because slices take ten times as long to compile.)"""
    out_local, out_dual, out_flags = part
    for b in prange(len(offsets) - 1):
        begin = offsets[b] - offsets[0]
        for i in range(offsets[b + 1] - offsets[b]):
            out_local[begin + i], out_flags[begin + i] = local[b, i], flags[b, i]
            for k in range(3):
                out_dual[begin + i, k] = dual[b, i, k]


@njit(cache=True, nogil=True, parallel=True)
def _place(bricks, offsets, begin, end, part, rows, cells, out, crossed, sign):
    """Move the cells of bricks begin to end to their final rows."""
    local, dual, flags = part
    for b in prange(begin, end):
        for r in range(offsets[b], offsets[b + 1]):
            source, row = r - offsets[begin], rows[r]
            at, bits = local[source], flags[source]
            cells[row, 0] = (bricks[b, 0] << BITS) + (at >> 2 * BITS)
            cells[row, 1] = (bricks[b, 1] << BITS) + ((at >> BITS) & (SIDE - 1))
            cells[row, 2] = (bricks[b, 2] << BITS) + (at & (SIDE - 1))
            for k in range(3):
                out[row, k] = dual[source, k]
                crossed[row, k] = bits >> k & 1
                sign[row, k] = bits >> (3 + k) & 1
