"""Compiled CPU engine: bricks of 16³ cells on threads, twice over each (count, then write), then one move to the final order.

No sum is shared between threads, and each is taken in the order of the triangles, so results do not depend on their number.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from voxgen.ops.voxelize._bricks import BITS, SIDE, VOLUME, bin_triangles, lexicographic_rows, load_corners
from voxgen.ops.voxelize._overlap import SETUP, box_overlaps, column_open, column_range, overlap_setup
from voxgen.ops.voxelize._prepare import Scene

from ._clip import LONGEST, SUMS, add_clipped

TOLERANCE = 1e-9
"""As in the reference."""


def surface_sums(scene: Scene, moments: bool) -> tuple[Tensor, Tensor]:
    """See `_reference.surface_sums`."""
    table = bin_triangles(scene)
    mesh, workers = (scene.vertices.numpy(), scene.faces.numpy(), scene.resolution), get_num_threads()
    offsets = np.zeros(len(table.bricks) + 1, np.int64)
    width = SUMS if moments else 0
    _scan(*mesh, *table, workers, offsets[1:], np.empty(0, np.int16), np.empty((0, width), np.float64))
    np.cumsum(offsets, out=offsets)
    local, sums = np.empty(offsets[-1], np.int16), np.empty((offsets[-1], width), np.float64)
    _scan(*mesh, *table, workers, offsets, local, sums)
    rows = lexicographic_rows(table.bricks, offsets, local, scene.resolution[1])
    cells, out = np.empty((len(rows), 3), np.int32), np.empty((len(rows), width), np.float64)
    _place(table.bricks, offsets, local, sums, rows, cells, out)
    return torch.from_numpy(cells), torch.from_numpy(out)


@njit(cache=True, nogil=True, error_model="numpy")
def _bounds(p, axis, low, high):
    """(first, end) of the cells along one axis in reach of a triangle p (3, 3), inside [low, high)."""
    least, most = min(p[0, axis], p[1, axis], p[2, axis]), max(p[0, axis], p[1, axis], p[2, axis])
    return max(low, int(np.floor(least - TOLERANCE))), min(high, int(np.floor(most + TOLERANCE)) + 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _touch(p, setup, low, high, touched, sums, polygons):
    """Mark the cells of a brick that the triangle p (3, 3) touches; where `sums` has columns, add the surface inside each."""
    x0, x1 = _bounds(p, 0, low[0], high[0])
    y0, y1 = _bounds(p, 1, low[1], high[1])
    z0, z1 = _bounds(p, 2, low[2], high[2])
    below, above = -TOLERANCE, 1.0 + TOLERANCE
    if x0 >= x1 or y0 >= y1 or z0 >= z1 or not overlap_setup(p, (below, below, below), (above, above, above), setup):
        return
    for i in range(x0, x1):
        for j in range(y0, y1):
            if not column_open(setup, i, j):
                continue
            first, end = column_range(setup[0], setup[1], setup[2], setup[3], setup[4], 1e-6, i, j, z0, z1)
            for k in range(first, end):
                if not box_overlaps(setup, i, j, k):
                    continue
                at = ((i - low[0]) << 2 * BITS) | ((j - low[1]) << BITS) | (k - low[2])
                touched[at] = True
                if sums.shape[1] > 0:
                    add_clipped(p, i, j, k, setup[0], setup[1], setup[2], polygons, sums[at])


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _scan(vertices, faces, resolution, bricks, offsets, items, workers, starts, local, sums):
    """Without room in `local`: write the number of cells of each brick to `starts`. With: write from there the cells of each brick
    in ascending order, and their sums."""
    write = len(local) > 0
    width = sums.shape[1] if write else 0
    for worker in prange(workers):
        corners, setup = np.empty((3, 3), np.float64), np.empty(SETUP, np.float64)
        polygons = np.empty((2, LONGEST, 3), np.float64)
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        touched, own = np.zeros(VOLUME, np.bool_), np.zeros((VOLUME, width), np.float64)
        for b in range(worker, len(bricks), workers):
            for k in range(3):
                low[k] = bricks[b, k] * SIDE
                high[k] = min(low[k] + SIDE, resolution[k])
            for item in range(offsets[b], offsets[b + 1]):
                load_corners(vertices, faces, items[item], corners)
                _touch(corners, setup, low, high, touched, own, polygons)
            count = 0
            for at in range(VOLUME):
                if not touched[at]:
                    continue
                if write:
                    local[starts[b] + count] = at
                    for s in range(width):
                        sums[starts[b] + count, s] = own[at, s]
                        own[at, s] = 0.0
                touched[at] = False
                count += 1
            if not write:
                starts[b] = count


@njit(cache=True, nogil=True, parallel=True)
def _place(bricks, starts, local, sums, rows, cells, out):
    """Move cells and sums from the order of bricks to their final rows."""
    for b in prange(len(bricks)):
        for r in range(starts[b], starts[b + 1]):
            row, at = rows[r], local[r]
            cells[row, 0] = (bricks[b, 0] << BITS) + (at >> 2 * BITS)
            cells[row, 1] = (bricks[b, 1] << BITS) + ((at >> BITS) & (SIDE - 1))
            cells[row, 2] = (bricks[b, 2] << BITS) + (at & (SIDE - 1))
            for s in range(sums.shape[1]):
                out[row, s] = sums[r, s]
