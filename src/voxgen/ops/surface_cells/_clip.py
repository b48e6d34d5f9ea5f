"""A triangle clipped to a cell, and integrals over what is left, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

SUMS = 13
"""Area, area · position (3), area · position² (3), area · n nᵀ (6)."""
LONGEST = 12
"""Corners that a triangle clipped by six planes can have, with room: each plane adds at most one."""


@njit(cache=True, nogil=True, error_model="numpy")
def _clip(source, count, axis, at, sign, target):
    """Write the part of a convex polygon with sign · (x_axis − at) ≥ 0 to `target`; return its number of corners."""
    made = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        d0, d1 = sign * (source[i, axis] - at), sign * (source[j, axis] - at)
        if d0 >= 0:
            for k in range(3):
                target[made, k] = source[i, k]
            made += 1
        if (d0 >= 0) != (d1 >= 0):
            share = d0 / (d0 - d1)
            for k in range(3):
                target[made, k] = source[i, k] + share * (source[j, k] - source[i, k])
            made += 1
    return made


@njit(cache=True, nogil=True, error_model="numpy")
def add_clipped(p, i, j, k, nx, ny, nz, polygons, sums):
    """Add the integrals over the part of the triangle p (3, 3) in cell (i, j, k), with the unit normal (nx, ny, nz), to `sums`."""
    for c in range(3):
        polygons[0, c, 0], polygons[0, c, 1], polygons[0, c, 2] = p[c, 0] - i, p[c, 1] - j, p[c, 2] - k
    count, side = 3, 0
    for axis in range(3):
        count = _clip(polygons[side], count, axis, 0.0, 1.0, polygons[1 - side])
        count = _clip(polygons[1 - side], count, axis, 1.0, -1.0, polygons[side])
    a = polygons[side]
    total = 0.0
    for c in range(1, count - 1):
        ux, uy, uz = a[c, 0] - a[0, 0], a[c, 1] - a[0, 1], a[c, 2] - a[0, 2]
        vx, vy, vz = a[c + 1, 0] - a[0, 0], a[c + 1, 1] - a[0, 1], a[c + 1, 2] - a[0, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        area = np.sqrt(x * x + y * y + z * z) / 2
        total += area
        for axis in range(3):
            q, r, s = a[0, axis], a[c, axis], a[c + 1, axis]
            both = q + r + s
            sums[1 + axis] += area * both / 3
            sums[4 + axis] += area * (both * both + q * q + r * r + s * s) / 12
    sums[0] += total
    sums[7] += total * nx * nx
    sums[8] += total * ny * ny
    sums[9] += total * nz * nz
    sums[10] += total * nx * ny
    sums[11] += total * ny * nz
    sums[12] += total * nz * nx
