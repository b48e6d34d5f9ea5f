"""Whether a triangle touches a cell, compiled: the original's test, in float32, operation by operation.

Touching counts, so that a mesh with faces in grid planes hangs on the last bit here, and only the original's own
arithmetic gives the original's answers. `_reference.touches` is the definition.
"""

from __future__ import annotations

import numpy as np
from numba import float32, njit

SETUP = 32
"""Floats of the set-up: unit normal (3), two plane offsets, then (m_p, m_q, d) for edges 0..2 in the planes xy, yz, zx."""


@njit(cache=True, nogil=True, error_model="numpy")
def touch_setup(vertices, faces, face, size, s):
    """Write to s (32 float32) what depends on the triangle only; False if it has no area."""
    i0, i1, i2 = faces[face, 0], faces[face, 1], faces[face, 2]
    ax, ay, az = vertices[i1, 0] - vertices[i0, 0], vertices[i1, 1] - vertices[i0, 1], vertices[i1, 2] - vertices[i0, 2]
    bx, by, bz = vertices[i2, 0] - vertices[i1, 0], vertices[i2, 1] - vertices[i1, 1], vertices[i2, 2] - vertices[i1, 2]
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    square = x * x + (y * y + z * z)
    if not square > 0:
        return False
    length = np.sqrt(square)
    s[0], s[1], s[2] = x / length, y / length, z / length
    zero = float32(0)
    c0 = size[0] if s[0] > 0 else zero
    c1 = size[1] if s[1] > 0 else zero
    c2 = size[2] if s[2] > 0 else zero
    v0, v1, v2 = vertices[i0, 0], vertices[i0, 1], vertices[i0, 2]
    s[3] = s[0] * (c0 - v0) + (s[1] * (c1 - v1) + s[2] * (c2 - v2))
    s[4] = s[0] * ((size[0] - c0) - v0) + (s[1] * ((size[1] - c1) - v1) + s[2] * ((size[2] - c2) - v2))
    at = 5
    for p in range(3):
        q, t = (p + 1) % 3, (p + 2) % 3
        for k in range(3):
            i, j = faces[face, k], faces[face, (k + 1) % 3]
            mp, mq = vertices[i, q] - vertices[j, q], vertices[j, p] - vertices[i, p]
            if s[t] < 0:
                mp, mq = -mp, -mq
            reach = max(mp, zero) * size[p] + max(mq, zero) * size[q]
            s[at], s[at + 1] = mp, mq
            s[at + 2] = reach - (mp * vertices[i, p] + mq * vertices[i, q])
            at += 3
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def touches_column(s, x, y):
    """False if no cell of the column with lower corner (x, y), float32, can touch: by the edges seen along z."""
    return s[5] * x + s[6] * y + s[7] >= 0 and s[8] * x + s[9] * y + s[10] >= 0 and s[11] * x + s[12] * y + s[13] >= 0


@njit(cache=True, nogil=True, error_model="numpy")
def touches_cell(s, x, y, z):
    """The rest of the test for a cell with lower corner (x, y, z), float32: plane, and edges seen along x and y."""
    distance = s[0] * x + (s[1] * y + s[2] * z)
    if (distance + s[3]) * (distance + s[4]) > 0:
        return False
    if s[14] * y + s[15] * z + s[16] < 0 or s[17] * y + s[18] * z + s[19] < 0 or s[20] * y + s[21] * z + s[22] < 0:
        return False
    return s[23] * z + s[24] * x + s[25] >= 0 and s[26] * z + s[27] * x + s[28] >= 0 and s[29] * z + s[30] * x + s[31] >= 0


@njit(cache=True, nogil=True, error_model="numpy")
def touch_bounds(a, b, c, size, cells, closed):
    """(first, end) of the cells along one axis in reach of three coordinates; a grid plane belongs to the cell above it."""
    first, end = int(min(a, b, c) / size), int(max(a, b, c) / size + float32(1))
    if closed:
        first = min(first, cells - 1)
        return first, max(min(end, cells), first + 1)
    return max(first, 0), min(end, cells)
