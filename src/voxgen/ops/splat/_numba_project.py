"""Projection of Gaussians, and its derivative by hand. The formulas are those of `_projection`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ._preset import FLOOR, SMALLEST_ALPHA

PAD = 1e-3
"""Pixels by which the box of a spot is widened; what is too much is dropped by its alpha."""

# A view as numbers: 0-8 rotation, 9-11 translation, 12-15 fx fy cx cy, 16-19 limits of x / z and y / z (low x, low y, high x, high y),
# 20 near, 21 far, 22 near included, 23 orthographic, 24 blur, 25 compensation (0 none, 1 determinant, 2 mip), 26 depth offset,
# 27-30 crop (x0, y0, width, height), 31 largest alpha, 32 strict stop.
# A spot as numbers: 0-1 position, 2-4 conic xx xy yy, 5 opacity.
SPOT_SIZE = 6


@njit(cache=True, nogil=True, error_model="numpy")
def _rotation(w, x, y, z, r):
    """The matrix of a unit quaternion into r (3, 3)."""
    r[0, 0], r[0, 1], r[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    r[1, 0], r[1, 1], r[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    r[2, 0], r[2, 1], r[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@njit(cache=True, nogil=True, error_model="numpy")
def _jacobian(view, x, y, z, j):
    """The Jacobian of the projection at a point in camera space into j (2, 3); whether x and whether y are clamped."""
    fx, fy = view[12], view[13]
    j[0, 1] = j[1, 0] = 0.0
    if view[23] != 0:
        j[0, 0], j[1, 1], j[0, 2], j[1, 2] = fx, fy, 0.0, 0.0
        return False, False
    tx, ty = x / z, y / z
    cut_x, cut_y = tx < view[16] or tx > view[18], ty < view[17] or ty > view[19]
    tx, ty = min(max(tx, view[16]), view[18]), min(max(ty, view[17]), view[19])
    j[0, 0], j[1, 1], j[0, 2], j[1, 2] = fx / z, fy / z, -fx * tx / z, -fy * ty / z
    return cut_x, cut_y


@njit(cache=True, nogil=True, error_model="numpy")
def _half(view, j, r, scales, i, along, half):
    """along = J W (2, 3); half = J W R S (2, 3), whose square is the covariance on the image."""
    for a in range(2):
        for k in range(3):
            along[a, k] = j[a, 0] * view[k] + j[a, 1] * view[3 + k] + j[a, 2] * view[6 + k]
        for k in range(3):
            half[a, k] = (along[a, 0] * r[0, k] + along[a, 1] * r[1, k] + along[a, 2] * r[2, k]) * scales[i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def _determinant(half):
    """Determinant of half half^T, without cancellation."""
    cx = half[0, 1] * half[1, 2] - half[0, 2] * half[1, 1]
    cy = half[0, 2] * half[1, 0] - half[0, 0] * half[1, 2]
    cz = half[0, 0] * half[1, 1] - half[0, 1] * half[1, 0]
    return cx * cx + cy * cy + cz * cz


@njit(cache=True, nogil=True, error_model="numpy")
def _compensation(kind, before, after):
    if kind == 0:
        return 1.0
    if kind == 2:
        return math.sqrt(before / (after + FLOOR) + FLOOR) if before > FLOOR and after > FLOOR else 0.0
    return math.sqrt(before / after) if before > 0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _local(view, means, i):
    x = view[0] * means[i, 0] + view[1] * means[i, 1] + view[2] * means[i, 2] + view[9]
    y = view[3] * means[i, 0] + view[4] * means[i, 1] + view[5] * means[i, 2] + view[10]
    z = view[6] * means[i, 0] + view[7] * means[i, 1] + view[8] * means[i, 2] + view[11]
    return x, y, z


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def project(means, rotations, scales, opacities, view, threads, spots, depth, box):
    """Fill spots (n, SPOT_SIZE), depth (n,), box (n, 4), first and last column, first and last row in the crop; last < first: none."""
    n = len(means)
    for thread in prange(threads):
        r, j, along, half = np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3))
        for i in range(thread * n // threads, (thread + 1) * n // threads):
            box[i, 0], box[i, 1], box[i, 2], box[i, 3] = 0, -1, 0, -1
            x, y, z = _local(view, means, i)
            if z < view[20] or (view[22] == 0 and z == view[20]) or z > view[21]:
                continue
            w, a, b, c = rotations[i, 0], rotations[i, 1], rotations[i, 2], rotations[i, 3]
            length = math.sqrt(w * w + a * a + b * b + c * c)
            _rotation(w / length, a / length, b / length, c / length, r)
            _jacobian(view, x, y, z, j)
            _half(view, j, r, scales, i, along, half)
            xx = half[0, 0] * half[0, 0] + half[0, 1] * half[0, 1] + half[0, 2] * half[0, 2]
            xy = half[0, 0] * half[1, 0] + half[0, 1] * half[1, 1] + half[0, 2] * half[1, 2]
            yy = half[1, 0] * half[1, 0] + half[1, 1] * half[1, 1] + half[1, 2] * half[1, 2]
            before, blur = _determinant(half), view[24]
            after = before + blur * (xx + yy) + blur * blur
            if not after > 0:
                continue
            opacity = opacities[i] * _compensation(view[25], before, after)
            if not opacity >= SMALLEST_ALPHA:
                continue
            if view[23] != 0:
                u, v = view[12] * x + view[14], view[13] * y + view[15]
            else:
                over = z + view[26]
                u, v = view[12] * x / over + view[14], view[13] * y / over + view[15]
            spots[i, 0], spots[i, 1] = u, v
            spots[i, 2], spots[i, 3], spots[i, 4], spots[i, 5] = (yy + blur) / after, -xy / after, (xx + blur) / after, opacity
            depth[i] = z
            reach = 2 * math.log(255 * opacity)
            wide, high = math.sqrt(reach * (xx + blur)) + PAD, math.sqrt(reach * (yy + blur)) + PAD
            left, top = u - view[27] - 0.5, v - view[28] - 0.5
            # compared as floats: a huge spot has ends that no integer holds
            box[i, 0] = int(max(0.0, min(np.ceil(left - wide), 1e9)))
            box[i, 1] = int(max(-1.0, min(np.floor(left + wide), view[29] - 1)))
            box[i, 2] = int(max(0.0, min(np.ceil(top - high), 1e9)))
            box[i, 3] = int(max(-1.0, min(np.floor(top + high), view[30] - 1)))


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def project_backward(means, rotations, scales, opacities, view, threads, box, d_spots, d_means, d_rotations, d_scales, d_opacities):
    """From the derivatives by the spots (n, SPOT_SIZE) to those by the inputs, which are zero at the start."""
    n = len(means)
    for thread in prange(threads):
        r, j, along, half = np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3))
        d_half, d_along, d_r = np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3))
        for i in range(thread * n // threads, (thread + 1) * n // threads):
            if box[i, 1] < box[i, 0] or box[i, 3] < box[i, 2]:
                continue
            x, y, z = _local(view, means, i)
            w, a, b, c = rotations[i, 0], rotations[i, 1], rotations[i, 2], rotations[i, 3]
            length = math.sqrt(w * w + a * a + b * b + c * c)
            w, a, b, c = w / length, a / length, b / length, c / length
            _rotation(w, a, b, c, r)
            cut_x, cut_y = _jacobian(view, x, y, z, j)
            _half(view, j, r, scales, i, along, half)
            d_xx, d_xy, d_yy = _covariance_backward(view, half, opacities, i, d_spots, d_opacities)
            for k in range(3):
                d_half[0, k] = 2 * d_xx * half[0, k] + d_xy * half[1, k]
                d_half[1, k] = 2 * d_yy * half[1, k] + d_xy * half[0, k]
            for k in range(3):
                d_along[0, k] = d_along[1, k] = 0.0
            for m in range(3):
                total = 0.0
                for k in range(3):
                    d = along[0, k] * d_half[0, m] + along[1, k] * d_half[1, m]  # by entry (k, m) of R S
                    total += d * r[k, m]
                    d_r[k, m] = d * scales[i, m]
                    d_along[0, k] += d_half[0, m] * r[k, m] * scales[i, m]
                    d_along[1, k] += d_half[1, m] * r[k, m] * scales[i, m]
                d_scales[i, m] = total
            _quaternion_backward(w, a, b, c, length, d_r, i, d_rotations)
            d_x, d_y, d_z = _camera_backward(view, x, y, z, cut_x, cut_y, j, d_along, d_spots[i, 0], d_spots[i, 1])
            for k in range(3):
                d_means[i, k] = view[k] * d_x + view[3 + k] * d_y + view[6 + k] * d_z


@njit(cache=True, nogil=True, error_model="numpy")
def _covariance_backward(view, half, opacities, i, d_spots, d_opacities):
    """By the covariance xx, xy, yy (before and after blur alike); that by the opacity is written."""
    blur = view[24]
    xx = half[0, 0] * half[0, 0] + half[0, 1] * half[0, 1] + half[0, 2] * half[0, 2]
    xy = half[0, 0] * half[1, 0] + half[0, 1] * half[1, 1] + half[0, 2] * half[1, 2]
    yy = half[1, 0] * half[1, 0] + half[1, 1] * half[1, 1] + half[1, 2] * half[1, 2]
    before = _determinant(half)
    after = before + blur * (xx + yy) + blur * blur
    p, q, s = (yy + blur) / after, -xy / after, (xx + blur) / after
    g, h, k = d_spots[i, 2], d_spots[i, 3] / 2, d_spots[i, 4]
    # the derivative of an inverse: - X G X
    gp, gq, hp, hq = p * g + q * h, p * h + q * k, q * g + s * h, q * h + s * k
    d_xx, d_xy, d_yy = -(gp * p + gq * q), -2 * (gp * q + gq * s), -(hp * q + hq * s)
    share = _compensation(view[25], before, after)
    d_opacities[i] = d_spots[i, 5] * share
    if view[25] != 0 and share > 0:
        d = d_spots[i, 5] * opacities[i] / (2 * share)
        floor = FLOOR if view[25] == 2 else 0.0
        d_before, d_after = d / (after + floor), -d * before / ((after + floor) * (after + floor))
        d_xx += d_before * yy + d_after * (yy + blur)
        d_yy += d_before * xx + d_after * (xx + blur)
        d_xy += -2 * xy * (d_before + d_after)
    return d_xx, d_xy, d_yy


@njit(cache=True, nogil=True, error_model="numpy")
def _quaternion_backward(w, x, y, z, length, d, i, d_rotations):
    """From that by the rotation matrix d (3, 3) to that by the quaternion before its normalisation."""
    gw = 2 * (x * (d[2, 1] - d[1, 2]) + y * (d[0, 2] - d[2, 0]) + z * (d[1, 0] - d[0, 1]))
    gx = 2 * (y * (d[0, 1] + d[1, 0]) + z * (d[0, 2] + d[2, 0]) + w * (d[2, 1] - d[1, 2]) - 2 * x * (d[1, 1] + d[2, 2]))
    gy = 2 * (x * (d[0, 1] + d[1, 0]) + z * (d[1, 2] + d[2, 1]) + w * (d[0, 2] - d[2, 0]) - 2 * y * (d[0, 0] + d[2, 2]))
    gz = 2 * (x * (d[0, 2] + d[2, 0]) + y * (d[1, 2] + d[2, 1]) + w * (d[1, 0] - d[0, 1]) - 2 * z * (d[0, 0] + d[1, 1]))
    along = w * gw + x * gx + y * gy + z * gz
    d_rotations[i, 0], d_rotations[i, 1] = (gw - w * along) / length, (gx - x * along) / length
    d_rotations[i, 2], d_rotations[i, 3] = (gy - y * along) / length, (gz - z * along) / length


@njit(cache=True, nogil=True, error_model="numpy")
def _camera_backward(view, x, y, z, cut_x, cut_y, j, d_along, d_u, d_v):
    """By the point in camera space, from its position and from the Jacobian there."""
    fx, fy = view[12], view[13]
    if view[23] != 0:
        return fx * d_u, fy * d_v, 0.0
    over = z + view[26]
    d_x, d_y = d_u * fx / over, d_v * fy / over
    d_z = -(d_u * fx * x + d_v * fy * y) / (over * over)
    d_j00 = d_along[0, 0] * view[0] + d_along[0, 1] * view[1] + d_along[0, 2] * view[2]
    d_j02 = d_along[0, 0] * view[6] + d_along[0, 1] * view[7] + d_along[0, 2] * view[8]
    d_j11 = d_along[1, 0] * view[3] + d_along[1, 1] * view[4] + d_along[1, 2] * view[5]
    d_j12 = d_along[1, 0] * view[6] + d_along[1, 1] * view[7] + d_along[1, 2] * view[8]
    d_z += -(d_j00 * j[0, 0] + d_j11 * j[1, 1]) / z
    # entry (0, 2) is - fx x / z², or - fx limit / z where x is clamped
    d_z += -d_j02 * j[0, 2] * (1.0 if cut_x else 2.0) / z - d_j12 * j[1, 2] * (1.0 if cut_y else 2.0) / z
    if not cut_x:
        d_x += -d_j02 * fx / (z * z)
    if not cut_y:
        d_y += -d_j12 * fy / (z * z)
    return d_x, d_y, d_z
