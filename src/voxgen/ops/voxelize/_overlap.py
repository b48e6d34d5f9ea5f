"""Overlap of a triangle with unit boxes, compiled: which bricks a triangle may have cells in.

Space is measured in bricks: brick (i, j, k) is the closed box [i, i + 1] × [j, j + 1] × [k, k + 1], grown by a margin that
makes up for rounding.

The separating axes are the triangle's plane and, in each coordinate plane, the normals of its three edges; together
with the bounding box these decide exactly. What depends on the triangle only is computed once (`overlap_setup`), what
depends on the column (i, j) only, once a column (`column_open`, `column_range`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

SETUP = 32
"""Floats of the set-up: normal (3), two plane offsets, then (m_p, m_q, d) for edges 0..2 in the planes xy, yz, zx."""


@njit(cache=True, nogil=True, error_model="numpy")
def overlap_setup(corners, margin, out):
    """Write the set-up of a triangle, corners (3, 3) in bricks, for boxes grown by `margin` on every side."""
    ax, ay, az = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1], corners[1, 2] - corners[0, 2]
    bx, by, bz = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1], corners[2, 2] - corners[0, 2]
    n0, n1, n2 = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    out[0], out[1], out[2] = n0, n1, n2
    low, high = 0.0 - margin, 1.0 + margin
    c0, e0 = (high, low) if n0 > 0 else (low, high)
    c1, e1 = (high, low) if n1 > 0 else (low, high)
    c2, e2 = (high, low) if n2 > 0 else (low, high)
    v0, v1, v2 = corners[0, 0], corners[0, 1], corners[0, 2]
    out[3] = n0 * (c0 - v0) + (n1 * (c1 - v1) + n2 * (c2 - v2))
    out[4] = n0 * (e0 - v0) + (n1 * (e1 - v1) + n2 * (e2 - v2))
    at = 5
    for p in range(3):
        q, t = (p + 1) % 3, (p + 2) % 3
        sign = -1.0 if out[t] < 0 else 1.0
        for k in range(3):
            k1 = (k + 1) % 3
            mp = -sign * (corners[k1, q] - corners[k, q])
            mq = sign * (corners[k1, p] - corners[k, p])
            reach = (mp * high if mp > 0 else mp * low) + (mq * high if mq > 0 else mq * low)
            out[at], out[at + 1] = mp, mq
            out[at + 2] = reach - (mp * corners[k, p] + mq * corners[k, q])
            at += 3


@njit(cache=True, nogil=True, error_model="numpy")
def column_open(s, i, j):
    """False if no brick (i, j, any) can overlap, by the edges seen along z."""
    return s[5] * i + s[6] * j + s[7] >= 0 and s[8] * i + s[9] * j + s[10] >= 0 and s[11] * i + s[12] * j + s[13] >= 0


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


@njit(cache=True, nogil=True, error_model="numpy")
def box_overlaps(s, i, j, k):
    """The rest of the test for a brick of an open column: plane, and edges seen along x and y."""
    distance = s[0] * i + (s[1] * j + s[2] * k)
    if (distance + s[3]) * (distance + s[4]) > 0:
        return False
    if s[14] * j + s[15] * k + s[16] < 0 or s[17] * j + s[18] * k + s[19] < 0 or s[20] * j + s[21] * k + s[22] < 0:
        return False
    return s[23] * k + s[24] * i + s[25] >= 0 and s[26] * k + s[27] * i + s[28] >= 0 and s[29] * k + s[30] * i + s[31] >= 0
