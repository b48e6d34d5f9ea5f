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
def _centres(low, high, margin, size):
    """First and last index whose centre, index + 0.5, lies in [low - margin, high + margin]; first > last if none does."""
    first = math.ceil(max(low - margin - 0.5, 0.0)) if low - margin <= size else size
    last = math.floor(min(high + margin - 0.5, size - 1.0)) if high + margin >= 0 else -1
    return np.int64(first), np.int64(last)


@njit(cache=True, nogil=True, error_model="numpy")
def face_bounds(positions, screen, faces, face, height, width):
    """(top, bottom, left, right), inclusive: no centre outside is covered. Empty if top > bottom or left > right."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x0, x1, x2 = screen[i, 0], screen[j, 0], screen[k, 0]
    if np.isnan(x0) or np.isnan(x1) or np.isnan(x2):
        return _clipped_bounds(positions, i, j, k, height, width)
    y0, y1, y2 = screen[i, 1], screen[j, 1], screen[k, 1]
    margin = (max(height, width) + 1) * 2.0**-22  # the error of float32 pixels, twice
    top, bottom = _centres(min(y0, y1, y2), max(y0, y1, y2), margin, height)
    left, right = _centres(min(x0, x1, x2), max(x0, x1, x2), margin, width)
    return top, bottom, left, right


@njit(cache=True, nogil=True, error_model="numpy")
def _clipped_bounds(positions, i, j, k, height, width):
    """The same for a face with a corner before the near plane z = -w: bounds of the part behind it."""
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
                return 0, height - 1, 0, width - 1
            x = ((positions[a, 0] + t * (np.float64(positions[b, 0]) - positions[a, 0])) / w + 1) * (width / 2)
            y = ((positions[a, 1] + t * (np.float64(positions[b, 1]) - positions[a, 1])) / w + 1) * (height / 2)
            x_low, x_high, y_low, y_high = min(x_low, x), max(x_high, x), min(y_low, y), max(y_high, y)
    top, bottom = _centres(y_low, y_high, 1.0, height)
    left, right = _centres(x_low, x_high, 1.0, width)
    return top, bottom, left, right
