"""The exact test of one pixel against one face, for the compiled z-buffer.

The same arithmetic in the same order as the reference, so that both see the same faces, bit for bit. No fast maths here.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NOTHING = 2.0
"""Returned where the face is not seen, and the depth of an empty pixel; depths lie in [-1, 1]."""


@njit(cache=True, nogil=True, error_model="numpy")
def load_face(positions, faces, face, height, width):
    """The corners in order of their index, in screen space: x and y in pixels times w, then z and w, float64."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    if i > j:
        i, j = j, i
    if j > k:
        j, k = k, j
    if i > j:
        i, j = j, i
    half_width, half_height = width / 2, height / 2
    w0, w1, w2 = np.float64(positions[i, 3]), np.float64(positions[j, 3]), np.float64(positions[k, 3])
    return (
        (positions[i, 0] + w0) * half_width,
        (positions[i, 1] + w0) * half_height,
        np.float64(positions[i, 2]),
        w0,
        (positions[j, 0] + w1) * half_width,
        (positions[j, 1] + w1) * half_height,
        np.float64(positions[j, 2]),
        w1,
        (positions[k, 0] + w2) * half_width,
        (positions[k, 1] + w2) * half_height,
        np.float64(positions[k, 2]),
        w2,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _top_left(xi, yi, wi, xj, yj, wj, side):
    """Whether a centre exactly on this edge belongs to the face: the left of a slanted, the top of a horizontal edge does."""
    along_columns = side * (yi * wj - wi * yj)
    along_rows = side * (wi * xj - xi * wj)
    return along_columns > 0 or (along_columns == 0 and along_rows > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def depth_in_face(corners, row, column):
    """z / w of the face under the pixel's centre, or NOTHING."""
    sx0, sy0, z0, w0, sx1, sy1, z1, w1, sx2, sy2, z2, w2 = corners
    px, py = column + 0.5, row + 0.5
    x0, y0 = sx0 - px * w0, sy0 - py * w0
    x1, y1 = sx1 - px * w1, sy1 - py * w1
    x2, y2 = sx2 - px * w2, sy2 - py * w2
    a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    if a0 >= 0 and a1 >= 0 and a2 >= 0:
        side = 1.0
    elif a0 <= 0 and a1 <= 0 and a2 <= 0:
        side = -1.0
    else:
        return NOTHING
    if a0 == 0 and not _top_left(x1, y1, w1, x2, y2, w2, side):
        return NOTHING
    if a1 == 0 and not _top_left(x2, y2, w2, x0, y0, w0, side):
        return NOTHING
    if a2 == 0 and not _top_left(x0, y0, w0, x1, y1, w1, side):
        return NOTHING
    weight = a0 * w0 + a1 * w1 + a2 * w2
    depth = (a0 * z0 + a1 * z1 + a2 * z2) / weight
    if side * weight > 0 and -1 <= depth <= 1:
        return depth
    return NOTHING
