"""What a mesh looks like at one piece of its surface, compiled. The arithmetic is that of `_evaluate`.

All that depends on the triangle only is worked out once for it (`plan_triangle`): where its textures are read, as linear
functions of (b1, b2), and what each column of the result is, as texture value × linear function × vertex colour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from voxgen.ops.texture._numba import add_lookup

from ._evaluate import SHARPEN, TILE_SLACK
from ._tables import ALPHA, BASE_COLOR, EMISSIVE, METALLIC, NORMAL, ROUGHNESS

READ = 16
"""Room for the texture values of one surface, and for the columns of a result: 12 at most."""
LOOKUPS = 6
"""Room for the lookups of one surface."""


class Plan(NamedTuple):
    """Scratch for one triangle.

    wrap: (LOOKUPS, 2) codes.   uv: (LOOKUPS, 2, 3), value at the first corner and change along b1 and b2.   level: (LOOKUPS,),
    level of a lookup over twice the triangle's area.   source: (READ,) which texture value each column has, -1 for none.
    line, tint: (READ, 3), factors of each column as linear functions.   cut: (READ,) threshold, -inf for none.
    lookups: (2,) the first of the surface's lookups, and how many there are.
    """

    lookups: np.ndarray
    wrap: np.ndarray
    uv: np.ndarray
    level: np.ndarray
    source: np.ndarray
    line: np.ndarray
    tint: np.ndarray
    cut: np.ndarray


@njit(cache=True, nogil=True)
def new_plan():
    return Plan(
        np.empty(2, np.int64),
        np.empty((LOOKUPS, 2), np.int64),
        np.empty((LOOKUPS, 2, 3), np.float64),
        np.empty(LOOKUPS, np.float64),
        np.empty(READ, np.int64),
        np.empty((READ, 3), np.float64),
        np.empty((READ, 3), np.float64),
        np.empty(READ, np.float64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def plan_triangle(tables, face, c0, c1, c2, offset, plan):
    """Fill the plan of a triangle with vertices c0, c1, c2; offset: added to levels."""
    surface = tables.surface[face]
    first, end = tables.surface_lookups[surface], tables.surface_lookups[surface + 1]
    plan.lookups[0], plan.lookups[1] = first, end - first
    plan.cut[:] = -math.inf
    for i in range(first, end):
        lookup, own = tables.lookups[i], i - first
        uv = tables.uv[lookup[7]]
        for k in range(2):
            low = math.floor(min(uv[c0, k], uv[c1, k], uv[c2, k]) + TILE_SLACK)
            plan.wrap[own, k] = lookup[4 + k]
            if lookup[4 + k] == 0 and max(uv[c0, k], uv[c1, k], uv[c2, k]) <= low + 1 + TILE_SLACK:
                plan.wrap[own, k] = 1
            else:
                low = 0.0
            line = plan.uv[own, k]
            line[0], line[1], line[2] = uv[c0, k] - low, uv[c1, k] - uv[c0, k], uv[c2, k] - uv[c0, k]
        texels = tables.levels[lookup[0], 1] * tables.levels[lookup[0], 2]
        plan.level[own] = 0.5 * math.log2(abs(determinant(uv, c0, c1, c2)) * texels) - SHARPEN + offset

    factors = tables.factors[surface]
    _plan_columns(tables, surface, BASE_COLOR, 3, factors, 0, c0, c1, c2, plan)
    _plan_columns(tables, surface, METALLIC, 1, factors, 3, c0, c1, c2, plan)
    _plan_columns(tables, surface, ROUGHNESS, 1, factors, 4, c0, c1, c2, plan)
    _plan_columns(tables, surface, EMISSIVE, 3, factors, 5, c0, c1, c2, plan)
    _plan_columns(tables, surface, ALPHA, 1, factors, 8, c0, c1, c2, plan)
    column = tables.result_places[ALPHA]
    if column < 0:
        return
    replaced, mode = tables.replaced_places[ALPHA] >= 0, tables.modes[surface, 0]
    if not replaced and (mode == 0 or tables.modes[surface, 1] != 0):  # 1, or a share as it is
        _constant(plan.line[column], 1.0)
        _constant(plan.tint[column], 1.0)
    elif mode == 1:
        plan.cut[column] = factors[9]


@njit(cache=True, nogil=True, error_model="numpy")
def _plan_columns(tables, surface, slot, width, factors, factor, c0, c1, c2, plan):
    for k in range(width):
        column = tables.result_places[slot] + k
        if column < k:
            return
        plan.source[column] = -1
        _constant(plan.tint[column], 1.0)
        if tables.replaced_places[slot] >= 0:
            _linear(tables.replaced, tables.replaced_places[slot] + k, c0, c1, c2, plan.line[column])
        else:
            _constant(plan.line[column], factors[factor + k])
            if tables.places[surface, slot] >= 0:
                plan.source[column] = tables.places[surface, slot] + k
        if len(tables.color) > 0 and (slot == BASE_COLOR or (slot == ALPHA and tables.replaced_places[slot] < 0)):
            _linear(tables.color, k if slot == BASE_COLOR else 3, c0, c1, c2, plan.tint[column])


@njit(cache=True, nogil=True)
def _constant(line, value):
    line[0], line[1], line[2] = value, 0.0, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _linear(rows, column, c0, c1, c2, line):
    line[0], line[1], line[2] = rows[c0, column], rows[c1, column] - rows[c0, column], rows[c2, column] - rows[c0, column]


@njit(cache=True, nogil=True, error_model="numpy")
def determinant(uv, c0, c1, c2):
    """Twice the signed area of a triangle in texture space."""
    return (uv[c1, 0] - uv[c0, 0]) * (uv[c2, 1] - uv[c0, 1]) - (uv[c1, 1] - uv[c0, 1]) * (uv[c2, 0] - uv[c0, 0])


@njit(cache=True, nogil=True, error_model="numpy")
def look(texels, plan, columns, b1, b2, share, read, values):
    """Write the columns of the result, but the normal, at one piece.

    Args:
        texels: lookups, cutoffs, levels, bytes, floats and decode of `Tables`.
        columns: how many columns there are, without the normal.
        share: the piece's area in the plane of (b1, b2).
        read: filled with the texture values.
    """
    first, count = plan.lookups[0], plan.lookups[1]
    if count > 0:
        sharpness = 0.5 * math.log2(share)
        for i in range(count):
            u = plan.uv[i, 0, 0] + (b1 * plan.uv[i, 0, 1] + b2 * plan.uv[i, 0, 2])
            v = plan.uv[i, 1, 0] + (b1 * plan.uv[i, 1, 1] + b2 * plan.uv[i, 1, 2])
            read_texture(texels, first + i, plan.level[i] + sharpness, u, v, plan.wrap[i, 0], plan.wrap[i, 1], read)
    for c in range(columns):
        value = plan.line[c, 0] + (b1 * plan.line[c, 1] + b2 * plan.line[c, 2])
        value *= plan.tint[c, 0] + (b1 * plan.tint[c, 1] + b2 * plan.tint[c, 2])
        if plan.source[c] >= 0:
            value *= read[plan.source[c]]
        if plan.cut[c] > -math.inf:
            value = 1.0 if value >= plan.cut[c] else 0.0
        values[c] = value


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
def mixed(rows, column, c0, c1, c2, b0, b1, b2):
    return rows[c0, column] * b0 + rows[c1, column] * b1 + rows[c2, column] * b2


@njit(cache=True, nogil=True, error_model="numpy")
def look_normal(tables, face, faces, b1, b2, edges, read, values):
    """Write the unit shading normal at one piece; edges: rows 0 and 1 the edges in world units, rows 2 to 4 scratch."""
    surface, c0, c1, c2 = tables.surface[face], faces[face, 0], faces[face, 1], faces[face, 2]
    out, place = tables.result_places[NORMAL], tables.places[surface, NORMAL]
    e1, e2, n, t, b = edges[0], edges[1], edges[2], edges[3], edges[4]
    for k in range(3):
        n[k] = mixed(tables.normals, k, c0, c1, c2, 1 - (b1 + b2), b1, b2)
    if not length(n) > 1e-6:
        cross(e1, e2, n)
    normalize(n)
    if place >= 0:
        uv = tables.uv[tables.normal_uv[surface]]
        det = determinant(uv, c0, c1, c2)
        side = 1.0 if det > 0 else -1.0
        f, g = uv[c2, 1] - uv[c0, 1], uv[c1, 1] - uv[c0, 1]
        for k in range(3):
            t[k] = side * (f * e1[k] - g * e2[k])
        along = t[0] * n[0] + t[1] * n[1] + t[2] * n[2]
        for k in range(3):
            t[k] -= along * n[k]
        if det != 0 and length(t) > 0:
            normalize(t)
            cross(n, t, b)
            scale = tables.factors[surface, 10]
            x, y, z = scale * (read[place] * 2 - 1), scale * (read[place + 1] * 2 - 1), read[place + 2] * 2 - 1
            for k in range(3):
                b[k] = x * t[k] + y * (side * b[k]) + z * n[k]
            if length(b) > 1e-6:
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
