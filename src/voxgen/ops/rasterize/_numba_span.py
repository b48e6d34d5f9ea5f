"""Which part of a row a wide triangle can cover, for the compiled z-buffer: a long thin one fills little of its bounding box."""

from __future__ import annotations

import math

from numba import njit

WIDE = 16
"""Columns from which on the span of a row pays for itself."""


@njit(cache=True, nogil=True, error_model="numpy")
def orientation(corners, row, column):
    """The sign that all three edge functions have inside the face; 0 where rounding leaves it open.

    Inside, w = D / Σ a_k is positive, where D = Σ a_k w_k is the same at every pixel; so a_k and D have one sign.
    """
    sx0, sy0, _, w0, sx1, sy1, _, w1, sx2, sy2, _, w2 = corners
    px, py = column + 0.5, row + 0.5
    x0, y0 = sx0 - px * w0, sy0 - py * w0
    x1, y1 = sx1 - px * w1, sy1 - py * w1
    x2, y2 = sx2 - px * w2, sy2 - py * w2
    determinant = (x1 * y2 - y1 * x2) * w0 + (x2 * y0 - y2 * x0) * w1 + (x0 * y1 - y0 * x1) * w2
    size = (abs(x1 * y2) + abs(y1 * x2)) * abs(w0) + (abs(x2 * y0) + abs(y2 * x0)) * abs(w1) + (abs(x0 * y1) + abs(y0 * x1)) * abs(w2)
    if abs(determinant) <= 1e-14 * size:
        return 0.0
    return 1.0 if determinant > 0 else -1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(xi, yi, wi, xj, yj, wj, side, width, low, high):
    """Keep the steps to the right, from low to high, at which one edge function can still have the right sign.

    The crossing is taken one pixel too far out, which is more than its rounding; an edge for which this may not hold cuts nothing.
    """
    value = side * (xi * yj - yi * xj)
    slope = side * (yi * wj - wi * yj)
    rounding = 1e-15 * (abs(xi * yj) + abs(yi * xj) + width * (abs(yi * wj) + abs(wi * yj)))
    if abs(slope) > 2 * rounding:
        crossing = -value / slope
        if slope > 0:
            low = max(low, math.floor(crossing) - 1)
        else:
            high = min(high, math.ceil(crossing) + 1)
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def row_span(corners, side, row, left, right):
    """First and last column of a row, within left..right, that the face can cover; first > last if none."""
    sx0, sy0, _, w0, sx1, sy1, _, w1, sx2, sy2, _, w2 = corners
    px, py = left + 0.5, row + 0.5
    x0, y0 = sx0 - px * w0, sy0 - py * w0
    x1, y1 = sx1 - px * w1, sy1 - py * w1
    x2, y2 = sx2 - px * w2, sy2 - py * w2
    low, high = 0.0, float(right - left)
    width = high
    low, high = _cut(x1, y1, w1, x2, y2, w2, side, width, low, high)
    low, high = _cut(x2, y2, w2, x0, y0, w0, side, width, low, high)
    low, high = _cut(x0, y0, w0, x1, y1, w1, side, width, low, high)
    if low > high:
        return right, left
    return left + int(low), left + int(high)
