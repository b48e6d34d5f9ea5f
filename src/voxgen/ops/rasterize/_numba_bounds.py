"""Conservative pixel bounds of projected triangles, for the compiled z-buffer."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def flagged_screen(positions, height, width, screen):
    """Clip space (v, 4) → pixels (v, 2) float32; NaN for vertices before the near plane, whose faces need clipping."""
    for v in prange(len(positions)):
        w = np.float64(positions[v, 3])
        if w > 0 and positions[v, 2] >= -w:
            screen[v, 0] = (positions[v, 0] / w + 1) * (width / 2)
            screen[v, 1] = (positions[v, 1] / w + 1) * (height / 2)
        else:
            screen[v, 0] = np.nan
            screen[v, 1] = np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _centres(low, high, margin, start, size):
    """First and last index, from `start` on, whose centre, index + 0.5, lies in [low - margin, high + margin]; none: first > last."""
    end = start + size
    first = math.ceil(max(low - margin - 0.5, np.float64(start))) if low - margin <= end else end
    last = math.floor(min(high + margin - 0.5, end - 1.0)) if high + margin >= start else start - 1
    return np.int64(first), np.int64(last)


@njit(cache=True, nogil=True, error_model="numpy")
def face_bounds(positions, screen, faces, face, frame):
    """(top, bottom, left, right), inclusive: no centre outside is covered. Empty if top > bottom or left > right.

    frame: the fields of `Window`.
    """
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x0, x1, x2 = screen[i, 0], screen[j, 0], screen[k, 0]
    if np.isnan(x0) or np.isnan(x1) or np.isnan(x2):
        return _clipped_bounds(positions, i, j, k, frame)
    y0, y1, y2 = screen[i, 1], screen[j, 1], screen[k, 1]
    x_low, x_high, y_low, y_high = min(x0, x1, x2), max(x0, x1, x2), min(y0, y1, y2), max(y0, y1, y2)
    margin = (max(frame[0], frame[1]) + 1) * 2.0**-22  # the error of float32 pixels, twice
    top, bottom = _centres(y_low, y_high, margin, frame[2], frame[4])
    left, right = _centres(x_low, x_high, margin, frame[3], frame[5])
    if top <= bottom and left <= right and x_high - x_low < 8 and y_high - y_low < 8 and (bottom - top + 1) * (right - left + 1) <= 4:
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                px, py = column + 0.5, row + 0.5
                if _near(x0 - px, y0 - py, x1 - px, y1 - py, x2 - px, y2 - py, margin):
                    return top, bottom, left, right
        return top, top - 1, left, left - 1
    return top, bottom, left, right


@njit(cache=True, nogil=True, error_model="numpy")
def _near(x0, y0, x1, y1, x2, y2, margin):
    """Whether the triangle can hold the origin: not if two edge functions surely differ in sign, with corners known to half the margin."""
    a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    error = margin * (abs(x0) + abs(y0) + abs(x1) + abs(y1) + abs(x2) + abs(y2) + margin)
    return min(a0, a1, a2) >= -error or max(a0, a1, a2) <= error


@njit(cache=True, nogil=True, error_model="numpy")
def _clipped_bounds(positions, i, j, k, frame):
    """The same for a face with a corner before the near plane z = -w: bounds of the part behind it."""
    height, width = frame[0], frame[1]
    x_low, x_high, y_low, y_high = np.inf, -np.inf, np.inf, -np.inf
    for corner in range(3):
        a = i if corner == 0 else (j if corner == 1 else k)
        b = j if corner == 0 else (k if corner == 1 else i)
        distance_a = np.float64(positions[a, 2]) + positions[a, 3]
        distance_b = np.float64(positions[b, 2]) + positions[b, 3]
        crosses = (distance_a < 0) != (distance_b < 0)
        for end in range(2):
            if end == 0 and distance_a >= 0:
                t = 0.0
            elif end == 1 and crosses:
                t = distance_a / (distance_a - distance_b)
            else:
                continue
            w = positions[a, 3] + t * (np.float64(positions[b, 3]) - positions[a, 3])
            if w <= 0:  # behind the near plane and yet behind the eye: no projection puts visible things there
                return frame[2], frame[2] + frame[4] - 1, frame[3], frame[3] + frame[5] - 1
            x = ((positions[a, 0] + t * (np.float64(positions[b, 0]) - positions[a, 0])) / w + 1) * (width / 2)
            y = ((positions[a, 1] + t * (np.float64(positions[b, 1]) - positions[a, 1])) / w + 1) * (height / 2)
            x_low, x_high, y_low, y_high = min(x_low, x), max(x_high, x), min(y_low, y), max(y_high, y)
    top, bottom = _centres(y_low, y_high, 1.0, frame[2], frame[4])
    left, right = _centres(x_low, x_high, 1.0, frame[3], frame[5])
    return top, bottom, left, right
