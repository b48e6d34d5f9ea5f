"""What a mesh looks like at one piece of its surface, compiled. The arithmetic is that of `_evaluate`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from voxgen.ops.texture._numba import add_lookup

from ._evaluate import CANCELLED, ROUND_UP, SHARPEN, TAPS, TILE_SLACK

READ = 16
"""Room for the texture values of one surface, and for the columns of a result: 12 at most."""
LOOKUPS = 6
"""Room for the lookups of one surface."""


class Plan(NamedTuple):
    """What depends on a triangle only, worked out once for all its pieces.

    wrap: (LOOKUPS, 2) codes.   uv: (LOOKUPS, 2, 3), value at the first corner and change along b1 and b2.   level: (LOOKUPS,),
    level of a lookup that covers the unit of area in (b1, b2).   stretch: (LOOKUPS, 3), `_evaluate.anisotropy`.
    line, tint: (READ, 3), the two factors of each column, as value at the first corner and change.
    """

    wrap: np.ndarray
    uv: np.ndarray
    level: np.ndarray
    stretch: np.ndarray
    line: np.ndarray
    tint: np.ndarray


@njit(cache=True, nogil=True)
def new_plan():
    return Plan(
        np.empty((LOOKUPS, 2), np.int64),
        np.empty((LOOKUPS, 2, 3), np.float64),
        np.empty(LOOKUPS, np.float64),
        np.empty((LOOKUPS, 3), np.float64),
        np.empty((READ, 3), np.float64),
        np.empty((READ, 3), np.float64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def plan_textures(texels, begin, end, uv_sets, c0, c1, c2, edges, offset, plan):
    """Fill the plan for lookups begin..end on a triangle with vertices c0, c1, c2; offset: added to levels."""
    for i in range(begin, end):
        own, uv_set, first = i - begin, texels.lookups[i, 7], texels.lookups[i, 0]
        for k in range(2):
            a, b, c = uv_sets[uv_set, c0, k], uv_sets[uv_set, c1, k], uv_sets[uv_set, c2, k]
            low = math.floor(min(a, b, c) + TILE_SLACK)
            plan.wrap[own, k] = texels.lookups[i, 4 + k]
            if plan.wrap[own, k] == 0 and max(a, b, c) <= low + 1 + TILE_SLACK:
                plan.wrap[own, k] = 1
            else:
                low = 0
            plan.uv[own, k, 0], plan.uv[own, k, 1], plan.uv[own, k, 2] = a - low, b - a, c - a
        u, v = plan.uv[own, 0], plan.uv[own, 1]
        height, width = texels.levels[first, 1], texels.levels[first, 2]
        plan.level[own] = 0.5 * math.log2(abs(u[1] * v[2] - v[1] * u[2]) * (width * height)) - SHARPEN + offset
        _plan_stretch(edges, u[1] * width, v[1] * height, u[2] * width, v[2] * height, plan.stretch[own])


@njit(cache=True, nogil=True, error_model="numpy")
def _plan_stretch(edges, x1, y1, x2, y2, out):
    """`_evaluate.anisotropy` of edges in the world and in the image."""
    g11, g12, g22 = 0.0, 0.0, 0.0
    for k in range(3):
        g11 += edges[0, k] * edges[0, k]
        g12 += edges[0, k] * edges[1, k]
        g22 += edges[1, k] * edges[1, k]
    a11, a12, a22 = x1 * x1 + y1 * y1, x1 * x2 + y1 * y2, x2 * x2 + y2 * y2
    area, texel_area = g11 * g22 - g12 * g12, a11 * a22 - a12 * a12
    out[0], out[1], out[2] = 1.0, 0.0, 0.0
    if not (area > 0 and texel_area > 0):
        return
    half = (a11 * g22 + a22 * g11 - 2 * a12 * g12) / 2
    largest = half + math.sqrt(max(half * half - area * texel_area, 0.0))
    stretch = largest / math.sqrt(area * texel_area)
    if not stretch > 1:
        return
    out[0] = min(stretch, 1e6)
    scale = largest / area
    mixed = scale * g12 - a12
    if abs(mixed) + abs(a11 - scale * g11) >= abs(a22 - scale * g22) + abs(mixed):
        out[1], out[2] = mixed, a11 - scale * g11
    else:
        out[1], out[2] = a22 - scale * g22, mixed


@njit(cache=True, nogil=True, error_model="numpy")
def plan_columns(looks, surface, vertex_rows, c0, c1, c2, columns, plan):
    """Fill the plan for the columns of the result."""
    for c in range(columns):
        for k in range(2):
            line = plan.line[c] if k == 0 else plan.tint[c]
            r = looks.rows[surface, c, k]
            if r < 0:
                line[0] = looks.factor[surface, c] if k == 0 else 1.0
                line[1] = line[2] = 0.0
            else:
                first = vertex_rows[c0, r]
                line[0], line[1], line[2] = first, vertex_rows[c1, r] - first, vertex_rows[c2, r] - first


@njit(cache=True, nogil=True, error_model="numpy")
def read_textures(texels, begin, end, plan, piece, share, tap, read):
    """Fill `read` with the texture values at one piece.

    Args:
        piece: its corners p, q, r as (p1, p2, q1, q2, r1, r2).   share: its area in the plane of (b1, b2).
        tap: scratch like `read`.
    """
    sharpness = 0.5 * math.log2(share)
    p1, p2, q1, q2, r1, r2 = piece
    b1, b2 = (p1 + q1 + r1) / 3, (p2 + q2 + r2) / 3
    for i in range(begin, end):
        own = i - begin
        level, stretch = plan.level[own] + sharpness, plan.stretch[own, 0]
        taps = max(1, min(math.floor(stretch + ROUND_UP), TAPS))
        longer = 0.5 * math.log2(stretch) if taps > 1 else 0.0
        if taps == 1 or not (level + longer > 0 and share > 0) or texels.lookups[i, 8] != 0:
            _read_at(texels, i, own, plan, level, b1, b2, read)
            continue
        level += max(longer - math.log2(taps), -longer)
        first, second = plan.stretch[own, 1], plan.stretch[own, 2]
        enters, leaves = _chord(piece, first, second)
        place, channels = texels.lookups[i, 9], texels.lookups[i, 2]
        for c in range(channels):
            tap[place + c] = 0.0
        for k in range(taps):
            along = enters + (k + 0.5) / taps * (leaves - enters)
            _read_at(texels, i, own, plan, level, b1 + along * first, b2 + along * second, read)
            for c in range(channels):
                tap[place + c] += read[place + c] / taps
        for c in range(channels):
            read[place + c] = tap[place + c]


@njit(cache=True, nogil=True, error_model="numpy")
def _read_at(texels, i, own, plan, level, b1, b2, read):
    u = plan.uv[own, 0, 0] + (b1 * plan.uv[own, 0, 1] + b2 * plan.uv[own, 0, 2])
    v = plan.uv[own, 1, 0] + (b1 * plan.uv[own, 1, 1] + b2 * plan.uv[own, 1, 2])
    read_texture(texels, i, level, u, v, plan.wrap[own, 0], plan.wrap[own, 1], read)


@njit(cache=True, nogil=True, error_model="numpy")
def _chord(piece, first, second):
    """Where the line from a piece's centroid enters and leaves the piece, as multiples of the direction (first, second)."""
    p1, p2, q1, q2, r1, r2 = piece
    u1, u2, v1, v2 = q1 - p1, q2 - p2, r1 - p1, r2 - p2
    area = u1 * v2 - u2 * v1
    g1, g2 = (first * v2 - second * v1) / area, (u1 * second - u2 * first) / area
    g0 = -g1 - g2
    return -1 / (3 * max(g0, g1, g2)), 1 / (3 * max(-g0, -g1, -g2))


@njit(cache=True, nogil=True, error_model="numpy")
def read_texture(texels, i, level, u, v, wrap_u, wrap_v, read):
    """Write what lookup i reads at (u, v) on a level, fractions mixed, to its place in `read`."""
    lookups, cutoffs, levels, texel_bytes, texel_floats, decode = texels
    channels, place = lookups[i, 2], lookups[i, 9]
    position = min(level, lookups[i, 1] - 1.0) if level > 0 and lookups[i, 8] == 0 else 0.0
    k = int(position)
    share = position - k
    for c in range(channels):
        read[place + c] = 0.0
    row = lookups[i, 0] + k
    at, height, width = levels[row, 0], levels[row, 1], levels[row, 2]
    nearest = k == 0 and lookups[i, 6] != 0
    table = lookups[i, 3]
    if k == 0 and table >= 0:
        add_lookup(texel_bytes, at, height, width, channels, decode, table, u, v, wrap_u, wrap_v, nearest, 1 - share, read, place)
    else:
        add_lookup(texel_floats, at, height, width, channels, decode, -1, u, v, wrap_u, wrap_v, nearest, 1 - share, read, place)
    if k == 0 and not math.isnan(cutoffs[i]):
        for c in range(channels):
            read[place + c] = (1 - share) * (read[place + c] >= (1 - share) * cutoffs[i])
    if share > 0:
        at, height, width = levels[row + 1, 0], levels[row + 1, 1], levels[row + 1, 2]
        add_lookup(texel_floats, at, height, width, channels, decode, -1, u, v, wrap_u, wrap_v, False, share, read, place)


@njit(cache=True, nogil=True, error_model="numpy")
def look(looks, surface, plan, columns, b1, b2, read, values):
    """Write the columns of the result, but the normal, at one piece."""
    for c in range(columns):
        value = plan.line[c, 0] + (b1 * plan.line[c, 1] + b2 * plan.line[c, 2])
        value *= plan.tint[c, 0] + (b1 * plan.tint[c, 1] + b2 * plan.tint[c, 2])
        if looks.source[surface, c] >= 0:
            value *= read[looks.source[surface, c]]
        if looks.cut[surface, c] > -math.inf:
            value = 1.0 if value >= looks.cut[surface, c] else 0.0
        values[c] = value


@njit(cache=True, nogil=True, error_model="numpy")
def look_normal(bumps, corners, surface, c0, c1, c2, b1, b2, edges, read, out, values):
    """Write the unit shading normal at one piece to three columns of `values`.

    Args:
        edges: (6, 3), rows 0 and 1 the edges in world units, rows 2 to 4 scratch.
    """
    e1, e2, n, t, b = edges[0], edges[1], edges[2], edges[3], edges[4]
    b0 = 1 - (b1 + b2)
    for k in range(3):
        n[k] = corners.normals[c0, k] * b0 + corners.normals[c1, k] * b1 + corners.normals[c2, k] * b2
    if not length(n) > CANCELLED:
        cross(e1, e2, n)
    normalize(n)
    place, uv_set = int(bumps[surface, 0]), int(bumps[surface, 1])
    if place >= 0:
        f, g = corners.uv[uv_set, c2, 1] - corners.uv[uv_set, c0, 1], corners.uv[uv_set, c1, 1] - corners.uv[uv_set, c0, 1]
        p, q = corners.uv[uv_set, c2, 0] - corners.uv[uv_set, c0, 0], corners.uv[uv_set, c1, 0] - corners.uv[uv_set, c0, 0]
        det = q * f - g * p
        side = 1.0 if det > 0 else -1.0
        for k in range(3):
            t[k] = side * (f * e1[k] - g * e2[k])
        along = t[0] * n[0] + t[1] * n[1] + t[2] * n[2]
        for k in range(3):
            t[k] -= along * n[k]
        if det != 0 and length(t) > 0:
            normalize(t)
            cross(n, t, b)
            scale = bumps[surface, 2]
            x, y, z = scale * (read[place] * 2 - 1), scale * (read[place + 1] * 2 - 1), read[place + 2] * 2 - 1
            for k in range(3):
                b[k] = x * t[k] + y * (side * b[k]) + z * n[k]
            if length(b) > CANCELLED:
                normalize(b)
                n = b
    for k in range(3):
        values[out + k] = n[k]


@njit(cache=True, nogil=True, error_model="numpy")
def cross(a, b, out):
    x, y, z = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    out[0], out[1], out[2] = x, y, z


@njit(cache=True, nogil=True, error_model="numpy")
def length(a):
    return math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])


@njit(cache=True, nogil=True, error_model="numpy")
def normalize(a):
    """Scale to unit length in place; nothing is done to zero."""
    size = length(a)
    if size > 0:
        a[0] /= size
        a[1] /= size
        a[2] /= size
