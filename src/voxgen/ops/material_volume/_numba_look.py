"""What a mesh looks like at one piece of its surface, compiled. The arithmetic is that of `_evaluate`.

What depends on a triangle only is worked out once for all its pieces, in two arrays:

plan: (LOOKUPS, PLAN), for each lookup of its surface: wrap codes of u and v; u, then v, at the first corner and its change along
    b1 and b2; the level of a lookup that covers the unit of area in (b1, b2); the number of points at which to read, half the
    logarithm of the anisotropy, what to add to the level, and the direction in (b1, b2) (see `_evaluate.anisotropy`).
lines: (READ, 6), for each column of the result its two factors, each as value at the first corner and change.

Functions that run once a piece take arrays and no records: taking a field out of a record counts a reference, which
costs more than the lookup.
"""

from __future__ import annotations

import math

from numba import njit

from voxgen.ops.texture._numba import add_lookup

from ._evaluate import CANCELLED, ROUND_UP, SHARPEN, TAPS, TILE_SLACK

READ = 16
"""Room for the texture values of one surface, and for the columns of a result: 12 at most."""
LOOKUPS = 6
"""Room for the lookups of one surface."""
PLAN = 14


@njit(cache=True, nogil=True, error_model="numpy")
def plan_textures(lookups, levels, begin, end, uv_sets, c0, c1, c2, edges, offset, plan):
    """Fill the plan for lookups begin..end on a triangle with vertices c0, c1, c2; offset: added to levels."""
    for i in range(begin, end):
        own, uv_set, first = i - begin, lookups[i, 7], lookups[i, 0]
        for k in range(2):
            a, b, c = uv_sets[uv_set, c0, k], uv_sets[uv_set, c1, k], uv_sets[uv_set, c2, k]
            low = math.floor(min(a, b, c) + TILE_SLACK)
            plan[own, k] = lookups[i, 4 + k]
            if lookups[i, 4 + k] == 0 and max(a, b, c) <= low + 1 + TILE_SLACK:
                plan[own, k] = 1
            else:
                low = 0
            plan[own, 2 + 3 * k], plan[own, 3 + 3 * k], plan[own, 4 + 3 * k] = a - low, b - a, c - a
        u1, u2, v1, v2 = plan[own, 3], plan[own, 4], plan[own, 6], plan[own, 7]
        height, width = levels[first, 1], levels[first, 2]
        plan[own, 8] = 0.5 * math.log2(abs(u1 * v2 - v1 * u2) * (width * height)) - SHARPEN + offset
        _plan_stretch(edges, u1 * width, v1 * height, u2 * width, v2 * height, plan, own)


@njit(cache=True, nogil=True, error_model="numpy")
def _plan_stretch(edges, x1, y1, x2, y2, plan, own):
    """The last five numbers of a plan's row from the edges in the world and in the image."""
    g11, g12, g22 = 0.0, 0.0, 0.0
    for k in range(3):
        g11 += edges[0, k] * edges[0, k]
        g12 += edges[0, k] * edges[1, k]
        g22 += edges[1, k] * edges[1, k]
    a11, a12, a22 = x1 * x1 + y1 * y1, x1 * x2 + y1 * y2, x2 * x2 + y2 * y2
    area, texel_area = g11 * g22 - g12 * g12, a11 * a22 - a12 * a12
    plan[own, 9] = 1.0
    if not (area > 0 and texel_area > 0):
        return
    half = (a11 * g22 + a22 * g11 - 2 * a12 * g12) / 2
    largest = half + math.sqrt(max(half * half - area * texel_area, 0.0))
    stretch = min(largest / math.sqrt(area * texel_area), 1e6)
    taps = max(1, min(math.floor(stretch + ROUND_UP), TAPS))
    if taps == 1:
        return
    longer = 0.5 * math.log2(stretch)
    plan[own, 9], plan[own, 10], plan[own, 11] = taps, longer, max(longer - math.log2(taps), -longer)
    scale = largest / area
    mixed = scale * g12 - a12
    if abs(mixed) + abs(a11 - scale * g11) >= abs(a22 - scale * g22) + abs(mixed):
        plan[own, 12], plan[own, 13] = mixed, a11 - scale * g11
    else:
        plan[own, 12], plan[own, 13] = a22 - scale * g22, mixed


@njit(cache=True, nogil=True, error_model="numpy")
def plan_columns(factor, rows, surface, vertex_rows, c0, c1, c2, columns, lines):
    """Fill the lines of the columns of the result; factor and rows as in `Looks`."""
    for c in range(columns):
        for k in range(2):
            r = rows[surface, c, k]
            if r < 0:
                lines[c, 3 * k] = factor[surface, c] if k == 0 else 1.0
                lines[c, 3 * k + 1] = lines[c, 3 * k + 2] = 0.0
            else:
                first = vertex_rows[c0, r]
                lines[c, 3 * k] = first
                lines[c, 3 * k + 1], lines[c, 3 * k + 2] = vertex_rows[c1, r] - first, vertex_rows[c2, r] - first


@njit(cache=True, nogil=True, error_model="numpy")
def read_textures(
    lookups, cutoffs, levels, texel_bytes, texel_floats, decode, begin, end, plan, p1, p2, q1, q2, r1, r2, share, sums, read
):  # fmt: skip
    """Fill `read` with the texture values at one piece.

    Args:
        lookups to decode: as in `Texels`.   begin, end: which lookups.
        p1 to r2: the piece's corners p, q, r in the plane of (b1, b2).   share: its area there.
        sums: scratch like `read`.
    """
    sharpness = 0.5 * math.log2(share)
    b1, b2 = (p1 + q1 + r1) / 3, (p2 + q2 + r2) / 3
    for i in range(begin, end):
        own = i - begin
        level, taps = plan[own, 8] + sharpness, int(plan[own, 9])
        wrap_u, wrap_v = int(plan[own, 0]), int(plan[own, 1])
        first, second, enters, leaves = 0.0, 0.0, 0.0, 0.0
        if taps > 1:
            if level + plan[own, 10] > 0 and share > 0 and lookups[i, 8] == 0:
                level += plan[own, 11]
                first, second = plan[own, 12], plan[own, 13]
                enters, leaves = _chord(p1, p2, q1, q2, r1, r2, first, second)
            else:
                taps = 1
        place, channels = lookups[i, 9], lookups[i, 2]
        for k in range(taps):
            along = enters + (k + 0.5) / taps * (leaves - enters) if taps > 1 else 0.0
            x1, x2 = b1 + along * first, b2 + along * second
            u = plan[own, 2] + (x1 * plan[own, 3] + x2 * plan[own, 4])
            v = plan[own, 5] + (x1 * plan[own, 6] + x2 * plan[own, 7])
            read_texture(lookups, cutoffs, levels, texel_bytes, texel_floats, decode, i, level, u, v, wrap_u, wrap_v, read)
            if taps > 1:
                for c in range(place, place + channels):
                    sums[c] = read[c] / taps if k == 0 else sums[c] + read[c] / taps
        if taps > 1:
            for c in range(place, place + channels):
                read[c] = sums[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _chord(p1, p2, q1, q2, r1, r2, first, second):
    """Where the line from a piece's centroid enters and leaves the piece, as multiples of the direction (first, second)."""
    u1, u2, v1, v2 = q1 - p1, q2 - p2, r1 - p1, r2 - p2
    area = u1 * v2 - u2 * v1
    g1, g2 = (first * v2 - second * v1) / area, (u1 * second - u2 * first) / area
    g0 = -g1 - g2
    return -1 / (3 * max(g0, g1, g2)), 1 / (3 * max(-g0, -g1, -g2))


@njit(cache=True, nogil=True, error_model="numpy")
def read_texture(lookups, cutoffs, levels, texel_bytes, texel_floats, decode, i, level, u, v, wrap_u, wrap_v, read):
    """Write what lookup i reads at (u, v) on a level, fractions mixed, to its place in `read`."""
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
def look(source, cut, surface, lines, columns, b1, b2, read, values):
    """Write the columns of the result, but the normal, at one piece; source and cut as in `Looks`."""
    for c in range(columns):
        value = lines[c, 0] + (b1 * lines[c, 1] + b2 * lines[c, 2])
        value *= lines[c, 3] + (b1 * lines[c, 4] + b2 * lines[c, 5])
        if source[surface, c] >= 0:
            value *= read[source[surface, c]]
        if cut[surface, c] > -math.inf:
            value = 1.0 if value >= cut[surface, c] else 0.0
        values[c] = value


@njit(cache=True, nogil=True, error_model="numpy")
def look_normal(bumps, normals, uv, surface, c0, c1, c2, b1, b2, edges, read, out, values):
    """Write the unit shading normal at one piece to three columns of `values`.

    Args:
        edges: (6, 3), rows 0 and 1 the edges in world units, rows 2 to 4 scratch.
    """
    e1, e2, n, t, b = edges[0], edges[1], edges[2], edges[3], edges[4]
    b0 = 1 - (b1 + b2)
    for k in range(3):
        n[k] = normals[c0, k] * b0 + normals[c1, k] * b1 + normals[c2, k] * b2
    if not length(n) > CANCELLED:
        cross(e1, e2, n)
    normalize(n)
    place, uv_set = int(bumps[surface, 0]), int(bumps[surface, 1])
    if place >= 0:
        f, g = uv[uv_set, c2, 1] - uv[uv_set, c0, 1], uv[uv_set, c1, 1] - uv[uv_set, c0, 1]
        p, q = uv[uv_set, c2, 0] - uv[uv_set, c0, 0], uv[uv_set, c1, 0] - uv[uv_set, c0, 0]
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
