"""Where a mesh crosses the lattice columns through the centres of cells, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from voxgen.ops.voxelize._bricks import corners_in_cells, load_corners
from voxgen.ops.voxelize._prepare import Scene


def crossings_above(scene: Scene, coords: np.ndarray) -> np.ndarray:
    """(n,) int32: for each cell, how many faces the ray upwards (along +z) from its centre leaves through, minus how many it enters
    by. Cells are rows [0, x, y, z] in lexicographic order. An edge or vertex that the ray meets counts for one of its faces."""
    first = np.flatnonzero(np.append(True, (coords[1:, 1:3] != coords[:-1, 1:3]).any(1))[: len(coords)])
    begins = np.append(first, len(coords)).astype(np.int64)
    columns = np.ascontiguousarray(coords[first, 1:3])
    slabs = np.searchsorted(columns[:, 0], np.arange(scene.resolution[0] + 1)).astype(np.int64)
    mesh = (scene.vertices.numpy(), scene.faces.numpy(), scene.voxel_size)
    starts = np.zeros(len(columns) + 1, np.int64)
    _cross(*mesh, columns, slabs, starts[1:], np.empty(0, np.float64), np.empty(0, np.int8))
    np.cumsum(starts, out=starts)
    heights, signs = np.empty(starts[-1], np.float64), np.empty(starts[-1], np.int8)
    _cross(*mesh, columns, slabs, starts[:-1].copy(), heights, signs)
    above = np.empty(len(coords), np.int32)
    _sum_up(coords, begins, starts, heights, signs, above)
    return above


@njit(cache=True, nogil=True, error_model="numpy")
def _left(a, b, first, second, x, y):
    """Whether (x, y), moved by (ε, ε²), lies left of the line from a to b.

    Both faces beside an edge compute it from the same end (`first` and `second` are the vertices' numbers), so that rounding puts
    the point on one side for both.
    """
    if first > second:
        return not _left_of(b, a, x, y)
    return _left_of(a, b, x, y)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _left_of(a, b, x, y):
    area = (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
    if area != 0:
        return area > 0
    return b[1] < a[1] if b[1] != a[1] else b[0] > a[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _cross(vertices, faces, size, columns, slabs, places, heights, signs):
    """Without room in `heights`: count the crossings of each column in `places`. With: write them from there on."""
    write = len(heights) > 0
    p = np.empty((3, 3), np.float64)
    for face in range(len(faces)):
        load_corners(vertices, faces, face, p)
        corners_in_cells(p, size, 1.0, p)
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        low_x, high_x = min(p[0, 0], p[1, 0], p[2, 0]), max(p[0, 0], p[1, 0], p[2, 0])
        low_y, high_y = min(p[0, 1], p[1, 1], p[2, 1]), max(p[0, 1], p[1, 1], p[2, 1])
        ux, uy, uz = p[1, 0] - p[0, 0], p[1, 1] - p[0, 1], p[1, 2] - p[0, 2]
        vx, vy, vz = p[2, 0] - p[0, 0], p[2, 1] - p[0, 1], p[2, 2] - p[0, 2]
        area = ux * vy - uy * vx
        x0, x1 = max(0, int(np.ceil(low_x - 0.5))), min(len(slabs) - 2, int(np.floor(high_x - 0.5)))
        for x in range(x0, x1 + 1):
            column = slabs[x] + np.searchsorted(columns[slabs[x] : slabs[x + 1], 1], int(np.ceil(low_y - 0.5)))
            while column < slabs[x + 1] and columns[column, 1] + 0.5 <= high_y:
                cx, cy = x + 0.5, columns[column, 1] + 0.5
                side = _left(p[0], p[1], i, j, cx, cy)
                if side == _left(p[1], p[2], j, k, cx, cy) and side == _left(p[2], p[0], k, i, cx, cy):
                    if write:
                        s, t = (cx - p[0, 0]), (cy - p[0, 1])
                        z = p[0, 2]
                        if area != 0:
                            z += ((s * vy - t * vx) * uz + (t * ux - s * uy) * vz) / area
                        heights[places[column]] = min(max(z, min(p[0, 2], p[1, 2], p[2, 2])), max(p[0, 2], p[1, 2], p[2, 2]))
                        signs[places[column]] = 1 if side else -1
                    places[column] += 1
                column += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _sum_up(coords, begins, starts, heights, signs, above):
    """Go down each column, from its highest cell, and add up the crossings that are above."""
    for column in prange(len(begins) - 1):
        order = starts[column] + np.argsort(heights[starts[column] : starts[column + 1]])
        at, total = len(order) - 1, 0
        for row in range(begins[column + 1] - 1, begins[column] - 1, -1):
            while at >= 0 and heights[order[at]] > coords[row, 3] + 0.5:
                total += signs[order[at]]
                at -= 1
            above[row] = total
