"""Whether a triangle touches a box of a lattice, compiled; `dual_grid._reference.touches` is the definition, step by step.

The separating axes are the triangle's plane and, in each coordinate plane, the normals of its three edges; together with
the bounding box these decide exactly. Touching counts. What depends on the triangle only is computed once
(`overlap_setup`), what depends on the column only, once a column (`column_open`, `column_range`).

The type of the set-up decides the arithmetic: float64 on boxes grown by a hair (bricks, and cells by default), or float32 on
the cells as they are (compat).
"""

from __future__ import annotations

import numpy as np
from numba import njit

SETUP = 32
"""Numbers of the set-up: unit normal (3), two plane offsets, then (m_p, m_q, d) for edges 0..2 in the planes xy, yz, zx."""


@njit(cache=True, nogil=True, error_model="numpy")
def overlap_setup(p, low, high, s):
    """Write to s what depends on the triangle p (3, 3) only; False if it has no area (the test then ignores its plane).

    A box with the corner b covers b + low to b + high, three numbers each. All arguments are of one type.
    """
    ax, ay, az = p[1, 0] - p[0, 0], p[1, 1] - p[0, 1], p[1, 2] - p[0, 2]
    bx, by, bz = p[2, 0] - p[1, 0], p[2, 1] - p[1, 1], p[2, 2] - p[1, 2]
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    square = x * x + (y * y + z * z)
    s[0], s[1], s[2] = x, y, z
    if square > 0:
        length = np.sqrt(square)
        s[0], s[1], s[2] = x / length, y / length, z / length
    f0, n0 = (high[0], low[0]) if s[0] > 0 else (low[0], high[0])
    f1, n1 = (high[1], low[1]) if s[1] > 0 else (low[1], high[1])
    f2, n2 = (high[2], low[2]) if s[2] > 0 else (low[2], high[2])
    s[3] = s[0] * (f0 - p[0, 0]) + (s[1] * (f1 - p[0, 1]) + s[2] * (f2 - p[0, 2]))
    s[4] = s[0] * (n0 - p[0, 0]) + (s[1] * (n1 - p[0, 1]) + s[2] * (n2 - p[0, 2]))
    at = 5
    for u in range(3):
        v, t = (u + 1) % 3, (u + 2) % 3
        for k in range(3):
            k1 = (k + 1) % 3
            mu, mv = p[k, v] - p[k1, v], p[k1, u] - p[k, u]
            if s[t] < 0:
                mu, mv = -mu, -mv
            reach = mu * (high[u] if mu > 0 else low[u]) + mv * (high[v] if mv > 0 else low[v])
            s[at], s[at + 1] = mu, mv
            s[at + 2] = reach - (mu * p[k, u] + mv * p[k, v])
            at += 3
    return square > 0


@njit(cache=True, nogil=True, error_model="numpy")
def column_open(s, x, y):
    """False if no box of the column with lower corner (x, y) can touch: by the edges seen along z."""
    return s[5] * x + s[6] * y + s[7] >= 0 and s[8] * x + s[9] * y + s[10] >= 0 and s[11] * x + s[12] * y + s[13] >= 0


@njit(cache=True, nogil=True, error_model="numpy")
def box_overlaps(s, x, y, z):
    """The rest of the test for a box with lower corner (x, y, z): plane, and edges seen along x and y."""
    distance = s[0] * x + (s[1] * y + s[2] * z)
    if (distance + s[3]) * (distance + s[4]) > 0:
        return False
    if s[14] * y + s[15] * z + s[16] < 0 or s[17] * y + s[18] * z + s[19] < 0 or s[20] * y + s[21] * z + s[22] < 0:
        return False
    return s[23] * z + s[24] * x + s[25] >= 0 and s[26] * z + s[27] * x + s[28] >= 0 and s[29] * z + s[30] * x + s[31] >= 0


@njit(cache=True, nogil=True, error_model="numpy")
def column_range(n0, n1, n2, high_offset, low_offset, slack, i, j, low, high):
    """(first, end) of the boxes in column (i, j) within [low, high) that a plane may pass; conservative.

    The plane has the normal (n0, n1, n2); its value at a box is n · (i, j, k) + offset, where the offset is `high_offset` at the
    corner of the box with the greatest value and `low_offset` at that with the least. `slack` is allowed for rounding.
    """
    if abs(n2) < 1e-6 * (abs(n0) + abs(n1)):
        return low, high
    flat = n0 * i + n1 * j
    a, b = -(flat + high_offset + slack) / n2, -(flat + low_offset - slack) / n2
    if a > b:
        a, b = b, a
    first = max(low, int(np.ceil(max(a, low - 1.0))))
    return first, max(first, min(high, int(np.floor(min(b, high + 1.0))) + 1))
