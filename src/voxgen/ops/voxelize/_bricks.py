"""Bricks: cubes of 16³ cells, the unit of work of the compiled engines.

A brick fits in the cache of a core, bricks are independent of each other, and only those near the surface exist; so
bricks give threads without races, sums in a fixed order, and no array of the size of the cube. `bin_triangles` makes
the table; kernels then go over bricks (`prange` over workers, brick `w, w + workers, ...`) and over the triangles of
each in ascending order; `lexicographic_rows` says where the cells of all bricks belong in the final order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ._overlap import SETUP, box_overlaps, column_open, column_range, overlap_setup
from ._prepare import Scene

BITS = 4
SIDE = 1 << BITS
"""Cells along each axis of a brick."""
VOLUME = SIDE**3
MARGIN = 1e-6
"""By how much bricks are grown before the overlap test, in bricks: covers rounding, so that no touched cell is missed."""
OPEN_MARGIN = 1.001 / SIDE
"""The same where a crossing up to one cell below the grid counts for the first cell (`Scene.closed` is false)."""
DENSE_TABLE = 1 << 22
"""Up to this many bricks in the grid, a table of all of them replaces a sort of the keys."""


class BrickTable(NamedTuple):
    """Bricks near a surface and what touches each.

    bricks: (k, 3) int64, in lexicographic order.
    offsets: (k + 1,) int64: brick b has items offsets[b]:offsets[b + 1].   items: (p,) int32, ascending inside a brick.
    """

    bricks: np.ndarray
    offsets: np.ndarray
    items: np.ndarray


def bin_triangles(scene: Scene, reach: float = 0.0) -> BrickTable:
    """The bricks that contain cells of a triangle's (closed) neighbourhood, and the triangles of each. A conservative list.

    Args:
        reach: bricks within this distance of a triangle belong to it too, in cells.
    """
    vertices, faces = scene.vertices.numpy(), scene.faces.numpy()
    margin = (MARGIN if scene.closed else OPEN_MARGIN) + reach / SIDE
    mesh = (vertices, faces, scene.voxel_size, brick_shape(scene.resolution), margin)
    begins = np.zeros(len(faces) + 1, np.int64)
    _visit_all(*mesh, begins[1:], np.empty(0, np.int64), np.empty(0, np.int32))
    np.cumsum(begins, out=begins)
    keys, items = np.empty(begins[-1], np.int64), np.empty(begins[-1], np.int32)
    _visit_all(*mesh, begins, keys, items)
    return group_by_brick(keys, items, scene.resolution)


def brick_shape(resolution: tuple[int, int, int]) -> tuple[int, int, int]:
    """Bricks along each axis."""
    x, y, z = ((n + SIDE - 1) >> BITS for n in resolution)
    return x, y, z


def group_by_brick(keys: np.ndarray, items: np.ndarray, resolution: tuple[int, int, int]) -> BrickTable:
    """Sort items by the flat index of their brick, keeping the order of the items of each."""
    shape = brick_shape(resolution)
    size = shape[0] * shape[1] * shape[2]
    if size <= DENSE_TABLE:
        unique, rank = None, keys
    else:
        unique, rank = np.unique(keys, return_inverse=True)
        size = len(unique)
    offsets, order = _counting_sort(rank, size)
    if unique is None:
        used = np.flatnonzero(np.diff(offsets))
        unique, offsets = used, np.append(offsets[used], offsets[-1])
    bricks = np.stack(np.unravel_index(unique, shape), 1).astype(np.int64)
    return BrickTable(bricks, offsets, items[order])


@njit(cache=True, nogil=True)
def _counting_sort(rank, size):
    offsets, place = np.zeros(size + 1, np.int64), np.zeros(size, np.int64)
    for i in range(len(rank)):
        offsets[rank[i] + 1] += 1
    for i in range(size):
        place[i] = offsets[i]
        offsets[i + 1] += offsets[i]
    order = np.empty(len(rank), np.int64)
    for i in range(len(rank)):
        order[place[rank[i]]] = i
        place[rank[i]] += 1
    return offsets, order


@njit(cache=True, nogil=True, error_model="numpy")
def load_corners(vertices, faces, face, corners):
    """Corners of a triangle as float64, (3, 3), relative to the lowest corner of the grid, in world units."""
    for c in range(3):
        for k in range(3):
            corners[c, k] = vertices[faces[face, c], k]


@njit(cache=True, nogil=True, error_model="numpy")
def corners_in_cells(corners, size, scale, out):
    """The same corners measured in cells, or with scale = 1 / SIDE in bricks."""
    for c in range(3):
        for k in range(3):
            out[c, k] = corners[c, k] / size[k] * scale


@njit(cache=True, nogil=True, error_model="numpy")
def _axis_bounds(a, b, c, boxes, margin):
    """(first, end) of the boxes along one axis, grown by `margin`, in reach of three coordinates, kept inside the grid."""
    first = int(np.floor(min(a, b, c) - margin))
    end = int(np.floor(max(a, b, c) + margin)) + 1
    return max(0, min(first, boxes - 1)), max(1, min(end, boxes))


@njit(cache=True, nogil=True, error_model="numpy")
def _visit_bricks(corners, shape, margin, setup, begin, keys):
    """Count the bricks of a triangle (corners in bricks); where `keys` is not empty, write their flat indices from `begin`."""
    x0, x1 = _axis_bounds(corners[0, 0], corners[1, 0], corners[2, 0], shape[0], margin)
    y0, y1 = _axis_bounds(corners[0, 1], corners[1, 1], corners[2, 1], shape[1], margin)
    z0, z1 = _axis_bounds(corners[0, 2], corners[1, 2], corners[2, 2], shape[2], margin)
    write = len(keys) > 0
    if (x1 - x0) * (y1 - y0) * (z1 - z0) == 1:
        if write:
            keys[begin] = (x0 * shape[1] + y0) * shape[2] + z0
        return 1
    low, high = -margin, 1.0 + margin
    overlap_setup(corners, (low, low, low), (high, high, high), setup)
    count = 0
    for i in range(x0, x1):
        for j in range(y0, y1):
            if not column_open(setup, i, j):
                continue
            first, end = column_range(setup[0], setup[1], setup[2], setup[3], setup[4], 1e-9, i, j, z0, z1)
            for k in range(first, end):
                if box_overlaps(setup, i, j, k):
                    if write:
                        keys[begin + count] = (i * shape[1] + j) * shape[2] + k
                    count += 1
    return count


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _visit_all(vertices, faces, size, shape, margin, begins, keys, items):
    """Without room in `keys`: write the number of bricks of each triangle to `begins`. With: write keys and items from there."""
    for block in prange((len(faces) + 255) // 256):
        corners, setup = np.empty((3, 3), np.float64), np.empty(SETUP, np.float64)
        for face in range(block * 256, min(len(faces), block * 256 + 256)):
            load_corners(vertices, faces, face, corners)
            corners_in_cells(corners, size, 1.0 / SIDE, corners)
            begin = begins[face] if len(keys) > 0 else 0
            count = _visit_bricks(corners, shape, margin, setup, begin, keys)
            if len(keys) > 0:
                for i in range(begin, begin + count):
                    items[i] = face
            else:
                begins[face] = count


def lexicographic_rows(bricks: np.ndarray, row_offsets: np.ndarray, local: np.ndarray, resolution_y: int) -> np.ndarray:
    """Where the cells of all bricks go when all cells are put in lexicographic order.

    Args:
        bricks: (k, 3) int64, lexicographic.   row_offsets: (k + 1,) int64: brick b has rows row_offsets[b]:row_offsets[b + 1].
        local: (n,) int16, cell of each row inside its brick, x << 8 | y << 4 | z, ascending inside a brick.
        resolution_y: cells along y.
    Returns:
        (n,) int64 final row of each.
    """
    slabs = np.flatnonzero(np.diff(bricks[:, 0], prepend=-1, append=-1))
    rows = np.empty(len(local), np.int64)
    _order_slabs(bricks, row_offsets, local, resolution_y, slabs, rows)
    return rows


@njit(cache=True, nogil=True, parallel=True)
def _order_slabs(bricks, row_offsets, local, resolution_y, slabs, rows):
    """Bricks of equal x form a slab, from slabs[s] to slabs[s + 1]. In a slab, columns (x, y) are counted and laid out in
    order; inside a column the bricks follow each other in ascending z already."""
    for slab in prange(len(slabs) - 1):
        place = np.zeros((SIDE * resolution_y + 1,), np.int64)
        for b in range(slabs[slab], slabs[slab + 1]):
            base = bricks[b, 1] * SIDE + 1
            for r in range(row_offsets[b], row_offsets[b + 1]):
                place[(local[r] >> 2 * BITS) * resolution_y + base + ((local[r] >> BITS) & (SIDE - 1))] += 1
        place[0] = row_offsets[slabs[slab]]
        for c in range(SIDE * resolution_y):
            place[c + 1] += place[c]
        for b in range(slabs[slab], slabs[slab + 1]):
            base = bricks[b, 1] * SIDE
            for r in range(row_offsets[b], row_offsets[b + 1]):
                column = (local[r] >> 2 * BITS) * resolution_y + base + ((local[r] >> BITS) & (SIDE - 1))
                rows[r] = place[column]
                place[column] += 1
