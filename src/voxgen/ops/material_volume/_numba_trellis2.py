"""The original's evaluation, compiled: one cell after another, the triangles of each in order. `_trellis2` says what is done."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ._numba_look import READ, cross, normalize, read_texture
from ._trellis2 import FLAT


@njit(cache=True, nogil=True, error_model="numpy")
def add_pairs(mesh, texels, looks, corners, cells, triangle, bounds, offset, begin, end, step, result):
    """Fill rows begin, begin + step, ... below end; cell r has the triangles triangle[bounds[r]:bounds[r + 1]]."""
    vertices, faces, size = mesh
    lookups, cutoffs, levels, texel_bytes, texel_floats, decode = texels
    lookup_bounds, source, factor, cut, _, bumps = looks
    surfaces, uv, _, normals = corners
    largest = max(size[0], size[1], size[2])
    width = result.shape[1]
    columns = width if len(normals) == 0 else width - 3
    frame, b = np.empty((6, 3), np.float64), np.empty(3, np.float64)
    read, values, sums = np.empty(READ, np.float64), np.empty(READ, np.float64), np.empty(width, np.float64)
    for row in range(begin, end, step):
        sums[:] = 0
        weights = 0.0
        for pair in range(bounds[row], bounds[row + 1]):
            face = triangle[pair]
            surface = surfaces[face]
            c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
            weight = 1 - _project(vertices, size, cells, row, c0, c1, c2, frame, b)
            for i in range(lookup_bounds[surface], lookup_bounds[surface + 1]):
                uv_set = lookups[i, 7]
                level = _level(uv, uv_set, c0, c1, c2, frame, largest * levels[lookups[i, 0], 1]) + offset
                u = uv[uv_set, c0, 0] * b[0] + uv[uv_set, c1, 0] * b[1] + uv[uv_set, c2, 0] * b[2]
                v = uv[uv_set, c0, 1] * b[0] + uv[uv_set, c1, 1] * b[1] + uv[uv_set, c2, 1] * b[2]
                wrap_u, wrap_v = lookups[i, 4], lookups[i, 5]
                if not math.isfinite(level):
                    level = 0.0
                read_texture(lookups, cutoffs, levels, texel_bytes, texel_floats, decode, i, level, u, v, wrap_u, wrap_v, read)
            for c in range(columns):
                value = factor[surface, c] * (1.0 if source[surface, c] < 0 else read[source[surface, c]])
                if cut[surface, c] > -math.inf:
                    value = 1.0 if value >= cut[surface, c] else 0.0
                values[c] = value
            if columns < width:
                _normal(bumps, normals, uv, surface, c0, c1, c2, b, frame, read, columns, values)
            weights += weight
            for c in range(width):
                sums[c] += weight * values[c]
        for c in range(width):
            result[row, c] = sums[c] / weights


@njit(cache=True, nogil=True, error_model="numpy")
def _dot(rows, i, j):
    return rows[i, 0] * rows[j, 0] + rows[i, 1] * rows[j, 1] + rows[i, 2] * rows[j, 2]


@njit(cache=True, nogil=True, error_model="numpy")
def _project(vertices, size, cells, row, c0, c1, c2, frame, b):
    """Barycentrics of a cell's centre on a triangle's plane, in `b`; edges in rows 0 and 1 of `frame`. Returns the signed distance."""
    for k in range(3):
        first = np.float64(vertices[c0, k])
        frame[0, k], frame[1, k] = np.float64(vertices[c1, k]) - first, np.float64(vertices[c2, k]) - first
        frame[3, k] = (cells[row, k] + 0.5) * size[k] - first
    cross(frame[0], frame[1], frame[2])
    normalize(frame[2])
    distance = _dot(frame, 3, 2)
    for k in range(3):
        frame[3, k] -= distance * frame[2, k]
    d11, d12, d22, q1, q2 = _dot(frame, 0, 0), _dot(frame, 0, 1), _dot(frame, 1, 1), _dot(frame, 3, 0), _dot(frame, 3, 1)
    scale = d11 * d22 - d12 * d12
    b[1] = 0.0 if scale == 0 else (d22 * q1 - d12 * q2) / scale
    b[2] = 0.0 if scale == 0 else (d11 * q2 - d12 * q1) / scale
    b[0] = 1 - b[1] - b[2]
    return distance


@njit(cache=True, nogil=True, error_model="numpy")
def _level(uv, uv_set, c0, c1, c2, frame, texels):
    """Level of a lookup over a voxel, `texels` texels long where the texture is as large as the world; -inf without coordinates."""
    det = _gradients(uv, uv_set, c0, c1, c2, frame)
    if abs(det) < FLAT:
        return -math.inf
    along = math.sqrt(math.sqrt(_dot(frame, 4, 4)) * math.sqrt(_dot(frame, 5, 5)))
    return math.log2(texels / along * abs(det))


@njit(cache=True, nogil=True, error_model="numpy")
def _gradients(uv, uv_set, c0, c1, c2, frame):
    """How the position changes with u and v, times the determinant, in rows 4 and 5 of `frame`; returns the determinant."""
    du1, dv1 = uv[uv_set, c1, 0] - uv[uv_set, c0, 0], uv[uv_set, c1, 1] - uv[uv_set, c0, 1]
    du2, dv2 = uv[uv_set, c2, 0] - uv[uv_set, c0, 0], uv[uv_set, c2, 1] - uv[uv_set, c0, 1]
    for k in range(3):
        frame[4, k] = dv2 * frame[0, k] - dv1 * frame[1, k]
        frame[5, k] = du1 * frame[1, k] - du2 * frame[0, k]
    return du1 * dv2 - dv1 * du2


@njit(cache=True, nogil=True, error_model="numpy")
def _normal(bumps, normals, uv, surface, c0, c1, c2, b, frame, read, out, values):
    """The shading normal of a pair, in three columns of `values`; only a mapped one has unit length."""
    for k in range(3):
        values[out + k] = normals[c0, k] * b[0] + normals[c1, k] * b[1] + normals[c2, k] * b[2]
    place = int(bumps[surface, 0])
    if place < 0:
        return
    tangent, bitangent, n = frame[4], frame[5], frame[2]
    det = _gradients(uv, int(bumps[surface, 1]), c0, c1, c2, frame)
    if abs(det) < FLAT:
        tangent[0], tangent[1], tangent[2] = 1.0, 0.0, 0.0
        bitangent[0], bitangent[1], bitangent[2] = 0.0, 1.0, 0.0
    else:
        normalize(tangent)
        normalize(bitangent)
    x, y, z = read[place] * 2 - 1, read[place + 1] * 2 - 1, read[place + 2] * 2 - 1
    for k in range(3):
        n[k] = x * tangent[k] + y * bitangent[k] + z * values[out + k]
    normalize(n)
    for k in range(3):
        values[out + k] = n[k]
