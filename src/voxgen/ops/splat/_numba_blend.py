"""Blending tile by tile, and its derivative by hand. One thread draws a tile; no two threads write to one place."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ._numba_project import PAD, SPOT_SIZE
from ._numba_tiles import TILE
from ._preset import SMALLEST_ALPHA, STOP


@njit(cache=True, nogil=True, error_model="numpy")
def _ellipse(xx, xy, yy, opacity):
    """Of the ellipse on which alpha is 1/255: square of its half width in the row of the centre, how that falls with dy², lean."""
    inverse = 1 / xx
    return 2 * math.log(255 * opacity) * inverse, (xx * yy - xy * xy) * inverse * inverse, xy * inverse


@njit(cache=True, nogil=True, error_model="numpy")
def _row_span(ellipse, dy, u, first, last):
    """First and last column of [first, last] in which alpha may reach 1/255; u is the spot's column in the crop."""
    square, fall, lean = ellipse
    square -= fall * dy * dy
    wide = (math.sqrt(square) if square > 0 else 0.0) + PAD
    middle = u + lean * dy
    left, right = middle - wide, middle + wide
    if left > first:  # false where the ellipse is so large that these are not numbers
        first = last + 1 if left > last else math.ceil(left)
    if right < last:
        last = first - 1 if right < first else math.floor(right)
    return first, last


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def blend(spots, box, features, bounds, gaussian, view, threads, image, through, last_pair):
    """Fill image (h, w, c), through (h, w), the light that passes, and last_pair (h, w), one past the last pair drawn at each pixel."""
    height, width, channels = image.shape
    x0, y0, alpha_max, strict = view[27], view[28], view[31], view[32] != 0
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(bounds) - 1
    for thread in prange(threads):
        full, open_in_row = np.empty((TILE, TILE), np.bool_), np.empty(TILE, np.int64)
        for tile in range(thread, tiles, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            full[:] = False
            open_in_row[:] = right - left
            open_pixels = (bottom - top) * (right - left)
            for pair in range(bounds[tile], bounds[tile + 1]):
                i = gaussian[pair]
                u, v = spots[i, 0], spots[i, 1]
                xx, xy, yy, opacity = spots[i, 2], spots[i, 3], spots[i, 4], spots[i, 5]
                ellipse = _ellipse(xx, xy, yy, opacity)
                first_column, last_column = max(left, box[i, 0]), min(right - 1, box[i, 1])
                for row in range(max(top, box[i, 2]), min(bottom - 1, box[i, 3]) + 1):
                    if open_in_row[row - top] == 0:
                        continue
                    dy = v - (y0 + row + 0.5)
                    first, last = _row_span(ellipse, dy, u - x0 - 0.5, first_column, last_column)
                    for column in range(first, last + 1):
                        if full[row - top, column - left]:
                            continue
                        dx = u - (x0 + column + 0.5)
                        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                        alpha = min(alpha_max, opacity * math.exp(-sigma))
                        if sigma < 0 or alpha < SMALLEST_ALPHA:
                            continue
                        before = through[row, column]
                        after = before * (1 - alpha)
                        if after < STOP or (after == STOP and not strict):
                            full[row - top, column - left] = True
                            open_in_row[row - top] -= 1
                            open_pixels -= 1
                            continue
                        weight = alpha * before
                        for k in range(channels):
                            image[row, column, k] += weight * features[i, k]
                        through[row, column] = after
                        last_pair[row, column] = pair + 1
                if open_pixels == 0:
                    break


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def blend_backward(spots, box, features, bounds, gaussian, slot, view, threads, through, last_pair, d_image, d_alpha, d_slots):
    """Fill d_slots (p, SPOT_SIZE + c), the derivatives by the spot and the features of each pair of Gaussian and tile."""
    height, width, channels = d_image.shape
    x0, y0, alpha_max = view[27], view[28], view[31]
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(bounds) - 1
    for thread in prange(threads):
        light, behind, end_of_row = np.empty((TILE, TILE)), np.empty((TILE, TILE)), np.empty(TILE, np.int64)
        for tile in range(thread, tiles, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            end = bounds[tile]
            for row in range(top, bottom):
                end_of_row[row - top] = 0
                for column in range(left, right):
                    light[row - top, column - left] = through[row, column]
                    behind[row - top, column - left] = -through[row, column] * d_alpha[row, column]
                    end_of_row[row - top] = max(end_of_row[row - top], last_pair[row, column])
                end = max(end, end_of_row[row - top])
            for pair in range(end - 1, bounds[tile] - 1, -1):
                i, out = gaussian[pair], d_slots[slot[pair]]
                u, v = spots[i, 0], spots[i, 1]
                xx, xy, yy, opacity = spots[i, 2], spots[i, 3], spots[i, 4], spots[i, 5]
                ellipse = _ellipse(xx, xy, yy, opacity)
                first_column, last_column = max(left, box[i, 0]), min(right - 1, box[i, 1])
                d_u, d_v, d_xx, d_xy, d_yy, d_opacity = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                for row in range(max(top, box[i, 2]), min(bottom - 1, box[i, 3]) + 1):
                    if pair >= end_of_row[row - top]:
                        continue
                    dy = v - (y0 + row + 0.5)
                    first, last = _row_span(ellipse, dy, u - x0 - 0.5, first_column, last_column)
                    for column in range(first, last + 1):
                        if pair >= last_pair[row, column]:
                            continue
                        dx = u - (x0 + column + 0.5)
                        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                        falloff = math.exp(-sigma)
                        alpha = min(alpha_max, opacity * falloff)
                        if sigma < 0 or alpha < SMALLEST_ALPHA:
                            continue
                        r, c = row - top, column - left
                        before = light[r, c] / (1 - alpha)
                        weight = alpha * before
                        along = 0.0
                        for k in range(channels):
                            g = d_image[row, column, k]
                            along += g * features[i, k]
                            out[SPOT_SIZE + k] += weight * g
                        d = before * along - behind[r, c] / (1 - alpha)
                        behind[r, c] += weight * along
                        light[r, c] = before
                        if opacity * falloff > alpha_max:
                            continue
                        d_opacity += d * falloff
                        d_sigma = -d * alpha
                        d_u += d_sigma * (xx * dx + xy * dy)
                        d_v += d_sigma * (yy * dy + xy * dx)
                        d_xx += 0.5 * d_sigma * dx * dx
                        d_xy += d_sigma * dx * dy
                        d_yy += 0.5 * d_sigma * dy * dy
                out[0], out[1], out[2], out[3], out[4], out[5] = d_u, d_v, d_xx, d_xy, d_yy, d_opacity


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def sum_slots(starts, d_slots, d_spots, d_features):
    """The derivatives of each Gaussian: the sum over its tiles, in a fixed order."""
    channels = d_features.shape[1]
    for i in prange(len(d_spots)):
        for s in range(starts[i], starts[i + 1]):
            for k in range(SPOT_SIZE):
                d_spots[i, k] += d_slots[s, k]
            for k in range(channels):
                d_features[i, k] += d_slots[s, SPOT_SIZE + k]
