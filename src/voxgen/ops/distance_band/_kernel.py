"""Distances in one brick of 16³ cells, compiled.

The triangles in reach of a brick are narrowed down for each block of 8³ cells, from those for each of 4³, and of 2³: those that
cannot be nearest to any of a block's cells are left out, because they are farther from the block's centre than the nearest one by
more than the block's diameter. The last list is sorted by that distance; each cell walks along it and stops where no later
triangle can be nearer.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from voxgen.ops.mesh_distance._closest import FLAT
from voxgen.ops.voxelize._bricks import BITS, SIDE

from ._reference import TIE

LEVELS = 3
"""Lists that are held at one time: of blocks of 8³, 4³ and 2³ cells."""
FACTS = 13
"""Numbers kept for each triangle: corner a, sides b − a and c − a, centre and radius of a ball around it."""


@njit(cache=True, nogil=True, error_model="numpy")
def load_facts(corners, facts):
    """Write what the distance needs to know about a triangle (corners (3, 3) in cells)."""
    reach = 0.0
    for k in range(3):
        facts[k] = corners[0, k]
        facts[3 + k] = corners[1, k] - corners[0, k]
        facts[6 + k] = corners[2, k] - corners[0, k]
        low = min(corners[0, k], corners[1, k], corners[2, k])
        high = max(corners[0, k], corners[1, k], corners[2, k])
        facts[9 + k] = (low + high) / 2
    for c in range(3):
        square = 0.0
        for k in range(3):
            square += (corners[c, k] - facts[9 + k]) ** 2
        reach = max(reach, square)
    facts[12] = np.sqrt(reach)


@njit(cache=True, nogil=True, error_model="numpy")
def _to_segment(px, py, pz, dx, dy, dz):
    """Squared distance from p to the segment from 0 to d."""
    square = dx * dx + dy * dy + dz * dz
    along = px * dx + py * dy + pz * dz
    t = min(max(along / square, 0.0), 1.0) if square > 0 else 0.0
    x, y, z = px - t * dx, py - t * dy, pz - t * dz
    return x * x + y * y + z * z


@njit(cache=True, nogil=True, error_model="numpy")
def squared_distance(f, px, py, pz):
    """From a point to a triangle: to its plane if the foot lies in it, else to the nearest of its sides."""
    x, y, z = px - f[0], py - f[1], pz - f[2]
    ux, uy, uz, vx, vy, vz = f[3], f[4], f[5], f[6], f[7], f[8]
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    pu, pv = x * ux + y * uy + z * uz, x * vx + y * vy + z * vz
    area = uu * vv - uv * uv
    s, t = vv * pu - uv * pv, uu * pv - uv * pu
    if area > FLAT * uu * vv and s >= 0 and t >= 0 and s + t <= area:
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        square = nx * nx + ny * ny + nz * nz
        if square > 0:
            height = x * nx + y * ny + z * nz
            return height * height / square
    best = min(_to_segment(x, y, z, ux, uy, uz), _to_segment(x, y, z, vx, vy, vz))
    return min(best, _to_segment(x - ux, y - uy, z - uz, vx - ux, vy - uy, vz - uz))


@njit(cache=True, nogil=True, error_model="numpy")
def _choose(facts, source, x, y, z, radius, band, distances, chosen):
    """The triangles out of `source` that may be nearest to a cell within `radius` of (x, y, z), their distances; how many."""
    least = band + radius
    count = 0
    for i in source:
        f = facts[i]
        dx, dy, dz = x - f[9], y - f[10], z - f[11]
        limit = min(least + 2 * radius, band + radius) + TIE
        reach = limit + f[12]
        if dx * dx + dy * dy + dz * dz > reach * reach:
            continue
        distance = np.sqrt(squared_distance(f, x, y, z))
        if distance <= limit:
            distances[count], chosen[count] = distance, i
            count += 1
            least = min(least, distance)
    kept = 0
    for j in range(count):
        if distances[j] <= least + 2 * radius + TIE:
            distances[kept], chosen[kept] = distances[j], chosen[j]
            kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(distances, chosen, count):
    """By distance; lists are short and nearly in order after the first."""
    for j in range(1, count):
        distance, item = distances[j], chosen[j]
        i = j
        while i > 0 and distances[i - 1] > distance:
            distances[i], chosen[i] = distances[i - 1], chosen[i - 1]
            i -= 1
        distances[i], chosen[i] = distance, item


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(facts, items, distances, chosen, count, apart, x, y, z, band):
    """Distance (infinite if beyond the band) and face of the nearest triangle to a cell, `apart` from the block's centre."""
    best, face = np.inf, np.int32(-1)
    limit = band
    for j in range(count):
        if distances[j] - apart > limit + TIE:
            break
        f = facts[chosen[j]]
        dx, dy, dz = x - f[9], y - f[10], z - f[11]
        reach = limit + TIE + f[12]
        if dx * dx + dy * dy + dz * dz > reach * reach:
            continue
        distance = np.sqrt(squared_distance(f, x, y, z))
        item = items[chosen[j]]
        if distance <= band and (distance < best - TIE or (distance <= best + TIE and item < face)):
            face = item
        best = min(best, distance)
        limit = min(limit, best)
    return best, face


@njit(cache=True, nogil=True, error_model="numpy")
def _narrow(facts, source, corner, side, band, resolution, distances, chosen):
    """`_choose` for the block of `side`³ cells at a lowest cell; 0 if it lies outside the grid."""
    if corner[0] >= resolution[0] or corner[1] >= resolution[1] or corner[2] >= resolution[2]:
        return 0
    half = side / 2
    radius = np.sqrt(3.0) * (half - 0.5)
    return _choose(facts, source, corner[0] + half, corner[1] + half, corner[2] + half, radius, band, distances, chosen)


@njit(cache=True, nogil=True, error_model="numpy")
def brick_distances(facts, items, brick, resolution, band, out_distance, out_face):
    """Write the distance and face of each cell of a brick, face −1 beyond the band; return how many are within."""
    found = 0
    out_face[:] = -1
    distances, lists = np.empty((LEVELS, len(items)), np.float64), np.empty((LEVELS, len(items)), np.int64)
    whole = np.arange(len(items))
    base = (brick[0] * SIDE, brick[1] * SIDE, brick[2] * SIDE)
    for eight in range(8):
        a = (base[0] + 8 * (eight >> 2), base[1] + 8 * (eight >> 1 & 1), base[2] + 8 * (eight & 1))
        count = _narrow(facts, whole, a, 8, band, resolution, distances[0], lists[0])
        for four in range(8 if count else 0):
            b = (a[0] + 4 * (four >> 2), a[1] + 4 * (four >> 1 & 1), a[2] + 4 * (four & 1))
            fewer = _narrow(facts, lists[0, :count], b, 4, band, resolution, distances[1], lists[1])
            for two in range(8 if fewer else 0):
                c = (b[0] + 2 * (two >> 2), b[1] + 2 * (two >> 1 & 1), b[2] + 2 * (two & 1))
                least = _narrow(facts, lists[1, :fewer], c, 2, band, resolution, distances[2], lists[2])
                _sort(distances[2], lists[2], least)
                for cell in range(8 if least else 0):
                    x, y, z = c[0] + (cell >> 2), c[1] + (cell >> 1 & 1), c[2] + (cell & 1)
                    if x >= resolution[0] or y >= resolution[1] or z >= resolution[2]:
                        continue
                    apart = np.sqrt(0.75)
                    distance, face = _walk(facts, items, distances[2], lists[2], least, apart, x + 0.5, y + 0.5, z + 0.5, band)
                    if face >= 0:
                        at = ((x - base[0]) << 2 * BITS) + ((y - base[1]) << BITS) + z - base[2]
                        out_distance[at], out_face[at] = distance, face
                        found += 1
    return found
