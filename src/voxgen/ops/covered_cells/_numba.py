"""Compiled CPU engine: bricks near the mesh on threads, one mark a cell."""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from voxgen.ops.dual_grid._prepare import touch_margin
from voxgen.ops.voxelize._bricks import BITS, SIDE, VOLUME, bin_triangles, corners_in_cells, lexicographic_rows, load_corners
from voxgen.ops.voxelize._overlap import SETUP, box_overlaps, column_open, column_range, overlap_setup
from voxgen.ops.voxelize._prepare import Scene

AT_ONCE = 1024
"""Bricks whose marks are held at one time."""


def covered_cells(scene: Scene) -> Tensor:
    """See `voxgen.ops.covered_cells.covered_cells`."""
    table = bin_triangles(scene)
    mesh = (scene.vertices.numpy(), scene.faces.numpy(), scene.voxel_size, scene.resolution, touch_margin(scene))
    marks = np.zeros((min(AT_ONCE, len(table.bricks)), VOLUME), np.bool_)
    counts, parts = [np.zeros(1, np.int64)], []
    for first in range(0, len(table.bricks), AT_ONCE):
        here = marks[: min(AT_ONCE, len(table.bricks) - first)]
        here[:] = False
        _mark(*mesh, table.bricks, table.offsets, table.items, first, get_num_threads(), here)
        counts.append(here.sum(1))
        parts.append(np.nonzero(here)[1].astype(np.int16))
    offsets = np.concatenate(counts).cumsum()
    local = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    rows = lexicographic_rows(table.bricks, offsets, local, scene.resolution[1])
    cells = np.empty((len(local), 3), np.int32)
    brick = np.repeat(table.bricks, np.diff(offsets), axis=0) << BITS
    cells[rows] = brick + np.stack((local >> 2 * BITS, (local >> BITS) & (SIDE - 1), local & (SIDE - 1)), 1)
    return torch.from_numpy(cells)


@njit(cache=True, nogil=True, error_model="numpy")
def _range(a, b, c, margin, low, end):
    """(first, end) of the cells of [low, end) in reach of three coordinates."""
    first = int(np.floor(min(a, b, c) - margin))
    last = int(np.floor(max(a, b, c) + margin)) + 1
    return max(low, first), min(end, last)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _mark(vertices, faces, size, resolution, margin, bricks, offsets, items, start, workers, marks):
    for worker in prange(workers):
        p, s = np.empty((3, 3), np.float64), np.empty(SETUP, np.float64)
        below, above = -margin, 1.0 + margin
        for b in range(worker, len(marks), workers):
            x, y, z = bricks[start + b, 0] << BITS, bricks[start + b, 1] << BITS, bricks[start + b, 2] << BITS
            for at in range(offsets[start + b], offsets[start + b + 1]):
                load_corners(vertices, faces, items[at], p)
                corners_in_cells(p, size, 1.0, p)
                if not overlap_setup(p, (below, below, below), (above, above, above), s):
                    continue
                x0, x1 = _range(p[0, 0], p[1, 0], p[2, 0], margin, x, min(x + SIDE, resolution[0]))
                y0, y1 = _range(p[0, 1], p[1, 1], p[2, 1], margin, y, min(y + SIDE, resolution[1]))
                z0, z1 = _range(p[0, 2], p[1, 2], p[2, 2], margin, z, min(z + SIDE, resolution[2]))
                for i in range(x0, x1):
                    for j in range(y0, y1):
                        if not column_open(s, i, j):
                            continue
                        first, end = column_range(s[0], s[1], s[2], s[3], s[4], 1e-9, i, j, z0, z1)
                        for k in range(first, end):
                            if box_overlaps(s, i, j, k):
                                marks[b, ((i - x) << 2 * BITS) | ((j - y) << BITS) | (k - z)] = True
