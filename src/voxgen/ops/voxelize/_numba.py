"""Compiled CPU engine: bricks on threads, twice over each (count, then write), then one move to the final order."""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from ._bricks import BITS, SIDE, VOLUME, bin_triangles, lexicographic_rows, load_corners
from ._prepare import Scene
from ._scan import edge_crossings


def triangle_cells(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """See `voxgen.ops.voxelize.triangle_cells`."""
    vertices, faces = scene.vertices.numpy(), scene.faces.numpy()
    table = bin_triangles(scene)
    mesh = (vertices, faces, scene.voxel_size, scene.resolution, scene.closed)
    workers = get_num_threads()
    offsets = np.zeros((len(table.bricks) + 1, 2), np.int64)
    _scan(*mesh, *table, workers, offsets[1:], np.empty(0, np.int16), np.empty(0, np.int32), np.empty(0, np.int32))
    np.cumsum(offsets, 0, out=offsets)
    cells, pairs = offsets[-1]
    local, sizes, triangle = np.empty(cells, np.int16), np.empty(cells, np.int32), np.empty(pairs, np.int32)
    _scan(*mesh, *table, workers, offsets, local, sizes, triangle)

    rows = lexicographic_rows(table.bricks, offsets[:, 0].copy(), local, scene.resolution[1])
    out_cells = np.empty((cells, 3), np.int32)
    begins = np.zeros(cells + 1, np.int64)
    begins[rows + 1] = sizes
    np.cumsum(begins, out=begins)
    out_triangle, out_row = np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    _place(table.bricks, offsets, local, sizes, triangle, rows, begins, out_cells, out_triangle, out_row)
    return torch.from_numpy(out_cells), torch.from_numpy(out_triangle), torch.from_numpy(out_row)


@njit(cache=True, nogil=True, error_model="numpy")
def _touched(vertices, faces, size, resolution, closed, brick, items, scratch, last, sizes, pair_cell, pair_face):
    """Go over the triangles of a brick; count each cell's triangles in `sizes`, and list the pairs if there is room for them."""
    corners, owners, points, low, high = scratch
    for k in range(3):
        low[k] = brick[k] * SIDE
        high[k] = min(low[k] + SIDE, resolution[k])
    for at in range(VOLUME):
        last[at], sizes[at] = -1, 0
    pairs = 0
    for face in items:
        load_corners(vertices, faces, face, corners)
        for axis in range(3):
            a0, a1 = (axis + 1) % 3, (axis + 2) % 3
            found = edge_crossings(corners, axis, low, high, resolution, size, closed, owners, points)
            for c in range(found):
                cell = owners[c]
                for d0 in range(2):
                    if not low[a0] <= cell[a0] + d0 < high[a0]:
                        continue
                    for d1 in range(2):
                        if not low[a1] <= cell[a1] + d1 < high[a1]:
                            continue
                        at = ((cell[0] - low[0]) << 2 * BITS) + ((cell[1] - low[1]) << BITS) + cell[2] - low[2]
                        at += (d0 << BITS * (2 - a0)) + (d1 << BITS * (2 - a1))
                        if last[at] != face:
                            last[at] = face
                            sizes[at] += 1
                            if pairs < len(pair_cell):
                                pair_cell[pairs], pair_face[pairs] = at, face
                            pairs += 1
    return pairs


@njit(cache=True, nogil=True)
def _scratch():
    points = (SIDE + 1) ** 2
    return (
        np.empty((3, 3), np.float64),
        np.empty((points, 3), np.int64),
        np.empty((points, 3), np.float64),
        np.empty(3, np.int64),
        np.empty(3, np.int64),
    )


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _scan(vertices, faces, size, resolution, closed, bricks, offsets, items, workers, starts, local, cell_pairs, triangle):
    """Without room in `triangle`: write the cells and pairs of each brick to `starts` (k, 2). With: write from there the cells
    of each brick in ascending order, how many triangles each has, and these triangles, one cell after another."""
    write = len(triangle) > 0
    for worker in prange(workers):
        scratch = _scratch()
        last, sizes = np.empty(VOLUME, np.int32), np.empty(VOLUME, np.int32)
        for b in range(worker, len(bricks), workers):
            pairs = starts[b + 1, 1] - starts[b, 1] if write else 0
            pair_cell, pair_face = np.empty(pairs, np.int32), np.empty(pairs, np.int32)
            mine = items[offsets[b] : offsets[b + 1]]
            pairs = _touched(vertices, faces, size, resolution, closed, bricks[b], mine, scratch, last, sizes, pair_cell, pair_face)
            if not write:
                count = 0
                for at in range(VOLUME):
                    count += sizes[at] > 0
                starts[b, 0], starts[b, 1] = count, pairs
                continue
            row, place = starts[b, 0], starts[b, 1]
            for at in range(VOLUME):
                if sizes[at] > 0:
                    local[row], cell_pairs[row] = at, sizes[at]
                    last[at] = place
                    place += sizes[at]
                    row += 1
            for i in range(pairs):
                triangle[last[pair_cell[i]]] = pair_face[i]
                last[pair_cell[i]] += 1


@njit(cache=True, nogil=True, parallel=True)
def _place(bricks, starts, local, sizes, triangle, rows, begins, out_cells, out_triangle, out_row):
    """Move cells and pairs from the order of bricks to their final rows."""
    for b in prange(len(bricks)):
        source = starts[b, 1]
        for r in range(starts[b, 0], starts[b + 1, 0]):
            row, at = rows[r], local[r]
            out_cells[row, 0] = (bricks[b, 0] << BITS) + (at >> 2 * BITS)
            out_cells[row, 1] = (bricks[b, 1] << BITS) + ((at >> BITS) & (SIDE - 1))
            out_cells[row, 2] = (bricks[b, 2] << BITS) + (at & (SIDE - 1))
            for i in range(sizes[r]):
                out_triangle[begins[row] + i] = triangle[source + i]
                out_row[begins[row] + i] = row
            source += sizes[r]
