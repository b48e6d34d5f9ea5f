"""One brick of the compiled engine: sum the error of each of its cells, then minimise it.

Only active cells get sums: `slot` maps a cell of the brick to its row, in order of first touch. Everything of a brick
(8 kB of slots and some hundred rows of 200 bytes) stays in the cache of one core.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from voxgen.ops.qef._numba import SMALLEST, minimise
from voxgen.ops.qef._reference import PULL
from voxgen.ops.voxelize._bricks import BITS, SIDE, VOLUME, corners_in_cells, load_corners
from voxgen.ops.voxelize._overlap import SETUP, box_overlaps, column_open, column_range, overlap_setup
from voxgen.ops.voxelize._scan import edge_crossings

from ._prepare import FOLD
from ._walk import next_cell, start_walk

TURNS = 13
"""First of twelve floats a row, four for each owned edge: number of its crossings and sum of their unit normals."""
SUMS = TURNS + 12
"""Floats a row: upper triangle of the 3×3 part (6), linear part (3), sum of the crossing points (3), number of crossings, `TURNS`."""
RANGE_SLACK = 1e-6
"""Slack, as a share of the grid's longest side, within which the test for touching may differ from exact arithmetic."""
PULL_SHARE = PULL[torch.float64]


@njit(cache=True, nogil=True)
def new_scratch():
    """Buffers that a worker uses again and again."""
    points = (SIDE + 1) ** 2
    slot = np.empty(VOLUME, np.int16)
    for at in range(VOLUME):
        slot[at] = -1
    sums, flags = np.empty((VOLUME, SUMS)), np.empty((VOLUME, 4), np.int32)
    corners, corners32 = np.empty((2, 3, 3)), np.empty((3, 3), np.float32)
    setup, setup32 = np.empty(SETUP), np.empty(SETUP, np.float32)
    owners, positions = np.empty((points, 3), np.int64), np.empty((points, 3))
    integers, floats = np.empty((2, 3), np.int64), np.empty((2, 3))
    return slot, sums, flags, corners, corners32, setup, setup32, owners, positions, integers, floats


@njit(cache=True, nogil=True, error_model="numpy")
def plane_of(corners, scale):
    """Plane (m, d) of a triangle with its corners in cells, as in `_reference.triangle_planes`."""
    ax, ay, az = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1], corners[1, 2] - corners[0, 2]
    bx, by, bz = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1], corners[2, 2] - corners[0, 2]
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = np.sqrt((x / scale[0]) ** 2 + (y / scale[1]) ** 2 + (z / scale[2]) ** 2)
    if length > 0:
        x, y, z = x / length, y / length, z / length
    return x, y, z, -(x * corners[0, 0] + y * corners[0, 1] + z * corners[0, 2])


@njit(cache=True, nogil=True, error_model="numpy")
def add_quadric(row, weight, a, b):
    """Add a quadric: upper triangle of its 3×3 part, and linear part."""
    for s in range(6):
        row[s] += weight * a[s]
    for s in range(3):
        row[6 + s] += weight * b[s]


@njit(cache=True, nogil=True, error_model="numpy")
def add_plane(row, weight, m, i, j, k):
    """Add the squared distance to a plane, as a function of the position in the cell (i, j, k)."""
    x, y, z, d = m
    d += x * i + y * j + z * k
    add_quadric(row, weight, (x * x, x * y, x * z, y * y, y * z, z * z), (x * d, y * d, z * d))


@njit(cache=True, nogil=True, error_model="numpy")
def add_crossings(vertices, faces, size, scale, resolution, closed, items, low, high, scratch):
    """Activate the cells around all crossed edges and add their planes and points; returns the number of active cells."""
    slot, sums, flags, corners, _, _, _, owners, positions, _, _ = scratch
    active = 0
    for face in items:
        load_corners(vertices, faces, face, corners[0])
        corners_in_cells(corners[0], size, 1.0, corners[1])
        m = plane_of(corners[1], scale)
        for axis in range(3):
            found = edge_crossings(corners[0], axis, low, high, resolution, size, closed, owners, positions)
            a0, a1 = (axis + 1) % 3, (axis + 2) % 3
            sign = 1 if m[axis] > 0 else (-1 if m[axis] < 0 else 0)
            for c in range(found):
                x, y, z = positions[c, 0] / size[0], positions[c, 1] / size[1], positions[c, 2] / size[2]
                for d0 in range(2):
                    for d1 in range(2):
                        i, j, k = owners[c, 0], owners[c, 1], owners[c, 2]
                        i += d0 if a0 == 0 else (d1 if a1 == 0 else 0)
                        j += d0 if a0 == 1 else (d1 if a1 == 1 else 0)
                        k += d0 if a0 == 2 else (d1 if a1 == 2 else 0)
                        if not (low[0] <= i < high[0] and low[1] <= j < high[1] and low[2] <= k < high[2]):
                            continue
                        at = ((i - low[0]) << 2 * BITS) | ((j - low[1]) << BITS) | (k - low[2])
                        n = slot[at]
                        if n < 0:
                            n = slot[at] = active
                            for s in range(SUMS):
                                sums[n, s] = 0
                            for s in range(4):
                                flags[n, s] = 0
                            active += 1
                        row = sums[n]
                        add_plane(row, 1.0, m, i, j, k)
                        row[9] += x - i
                        row[10] += y - j
                        row[11] += z - k
                        row[12] += 1
                        if d0 == 0 and d1 == 0:
                            flags[n, 0] |= 1 << axis
                            flags[n, 1 + axis] += sign
                            row[TURNS + 4 * axis] += 1
                            for s in range(3):
                                row[TURNS + 4 * axis + 1 + s] += m[s] / scale[s]
    return active


@njit(cache=True, nogil=True, error_model="numpy")
def touch_bounds(p, axis, size, cells, margin):
    """(first, end) of the cells along one axis in reach of a triangle p (3, 3): by rounding down if the margin is 0 (compat)."""
    low, high = min(p[0, axis], p[1, axis], p[2, axis]) / size, max(p[0, axis], p[1, axis], p[2, axis]) / size
    if margin > 0:
        return max(int(np.floor(low - margin)), 0), min(int(np.floor(high + margin)) + 1, cells)
    return max(int(low), 0), min(int(high + p.dtype.type(1)), cells)


@njit(cache=True, nogil=True, error_model="numpy")
def add_face(p, setup, size, margin, resolution, m, weight, low, high, slot, sums):
    """Add the plane m of the triangle p to the active cells that it touches. p, setup and size are of one type."""
    x0, x1 = touch_bounds(p, 0, size[0], resolution[0], margin)
    y0, y1 = touch_bounds(p, 1, size[1], resolution[1], margin)
    z0, z1 = touch_bounds(p, 2, size[2], resolution[2], margin)
    x0, x1, y0, y1, z0, z1 = max(x0, low[0]), min(x1, high[0]), max(y0, low[1]), min(y1, high[1]), max(z0, low[2]), min(z1, high[2])
    if x0 >= x1 or y0 >= y1 or z0 >= z1:
        return
    real = setup.dtype.type
    below = (real(-margin) * size[0], real(-margin) * size[1], real(-margin) * size[2])
    above = (size[0] - below[0], size[1] - below[1], size[2] - below[2])
    if not overlap_setup(p, below, above, setup):
        return
    slack = RANGE_SLACK * max(resolution[0], resolution[1], resolution[2])
    reach, offset = (abs(m[0]) + abs(m[1]) + abs(m[2])) / 2, m[3] + (m[0] + m[1] + m[2]) / 2
    for i in range(x0, x1):
        x = real(i) * size[0]
        for j in range(y0, y1):
            y = real(j) * size[1]
            if not column_open(setup, x, y):
                continue
            first, end = column_range(m[0], m[1], m[2], offset + reach, offset - reach, slack, i, j, z0, z1)
            for k in range(first, end):
                n = slot[((i - low[0]) << 2 * BITS) | ((j - low[1]) << BITS) | (k - low[2])]
                if n >= 0 and box_overlaps(setup, x, y, real(k) * size[2]):
                    add_plane(sums[n], weight, m, i, j, k)


@njit(cache=True, nogil=True, error_model="numpy")
def add_faces(vertices, faces, size, scale, resolution, margin, items, weight, low, high, scratch):
    """Add the plane of each triangle to the active cells that it touches."""
    slot, sums, _, corners, corners32, setup, setup32, _, _, _, _ = scratch
    size32 = (np.float32(size[0]), np.float32(size[1]), np.float32(size[2]))
    for face in items:
        load_corners(vertices, faces, face, corners[0])
        corners_in_cells(corners[0], size, 1.0, corners[1])
        m = plane_of(corners[1], scale)
        if margin > 0:
            add_face(corners[0], setup, size, margin, resolution, m, weight, low, high, slot, sums)
        else:
            load_corners(vertices, faces, face, corners32)
            add_face(corners32, setup32, size32, margin, resolution, m, weight, low, high, slot, sums)


@njit(cache=True, nogil=True, error_model="numpy")
def add_edge(vertices, edge, size, scale, resolution, closed, weight, first, entry, low, high, scratch):
    """Add the squared distance to a boundary edge to the active cells on its way, from its entry into the brick to its exit."""
    slot, sums, _, _, _, _, _, _, _, integers, floats = scratch
    cell, step, state, gap = integers[0], integers[1], floats[0], floats[1]
    length = start_walk(vertices, edge, size, resolution, closed, cell, state, gap, step)
    x = (np.float64(vertices[edge[1], 0]) - vertices[edge[0], 0]) / length
    y = (np.float64(vertices[edge[1], 1]) - vertices[edge[0], 1]) / length
    z = (np.float64(vertices[edge[1], 2]) - vertices[edge[0], 2]) / length
    u, v, w = scale
    a = (u * (1 - x * x) * u, -u * x * y * v, -u * x * z * w, v * (1 - y * y) * v, -v * y * z * w, w * (1 - z * z) * w)
    px, py, pz = vertices[edge[0], 0] / size[0], vertices[edge[0], 1] / size[1], vertices[edge[0], 2] / size[2]
    for k in range(3):
        cell[k], state[k] = first[k], entry[k]
    going = True
    while going and low[0] <= cell[0] < high[0] and low[1] <= cell[1] < high[1] and low[2] <= cell[2] < high[2]:
        n = slot[((cell[0] - low[0]) << 2 * BITS) | ((cell[1] - low[1]) << BITS) | (cell[2] - low[2])]
        if n >= 0:
            sx, sy, sz = px - cell[0], py - cell[1], pz - cell[2]
            b = (-a[0] * sx - a[1] * sy - a[2] * sz, -a[1] * sx - a[3] * sy - a[4] * sz, -a[2] * sx - a[4] * sy - a[5] * sz)
            add_quadric(sums[n], weight, a, b)
        going = next_cell(length, resolution, closed, cell, state, gap, step)


@njit(cache=True, nogil=True, error_model="numpy")
def minimise_cells(scale, regularization, closed, scratch, local, dual, flags_out):
    """Write cells, dual vertices and flags of a brick in ascending order of its cells, and free its slots."""
    slot, sums, flags, _, _, _, _, _, _, _, _ = scratch
    w0, w1, w2 = regularization * scale[0] ** 2, regularization * scale[1] ** 2, regularization * scale[2] ** 2
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    count = 0
    for at in range(VOLUME):
        n = slot[at]
        if n < 0:
            continue
        slot[at] = -1
        row = sums[n]
        times = row[12]
        a00, a11, a22 = row[0] + w0 * times, row[3] + w1 * times, row[5] + w2 * times
        pull = PULL_SHARE * (a00 + a11 + a22) + SMALLEST
        each = pull / times
        a = (a00 + pull, row[1], row[2], a11 + pull, row[4], a22 + pull)
        b = (row[6] - (w0 + each) * row[9], row[7] - (w1 + each) * row[10], row[8] - (w2 + each) * row[11])
        local[count] = at
        dual[count, 0], dual[count, 1], dual[count, 2] = minimise(a, b, zeros, ones)
        bits = flags[n, 0]
        for axis in range(3):
            if flags[n, 1 + axis] > 0:
                bits |= 8 << axis
            elif closed and flags[n, 1 + axis] == 0 and row[TURNS + 4 * axis] == 2:
                x, y, z = row[TURNS + 4 * axis + 1], row[TURNS + 4 * axis + 2], row[TURNS + 4 * axis + 3]
                if x * x + y * y + z * z > FOLD:
                    bits &= ~(1 << axis)
        flags_out[count] = bits
        count += 1
    return count
