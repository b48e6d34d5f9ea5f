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
    width = result.shape[1]
    columns = width if len(corners.normals) == 0 else width - 3
    frame = np.empty((6, 3), np.float64)
    b, read, values, sums = np.empty(3, np.float64), np.empty(READ, np.float64), np.empty(READ, np.float64), np.empty(width, np.float64)
    for row in range(begin, end, step):
        sums[:] = 0
        weights = 0.0
        for pair in range(bounds[row], bounds[row + 1]):
            face = triangle[pair]
            weight = 1 - _project(mesh, cells, row, face, frame, b)
            _read(mesh, texels, looks, corners, face, b, offset, frame, read)
            surface = corners.surface[face]
            for c in range(columns):
                source = looks.source[surface, c]
                value = looks.factor[surface, c] * (1.0 if source < 0 else read[source])
                if looks.cut[surface, c] > -math.inf:
                    value = 1.0 if value >= looks.cut[surface, c] else 0.0
                values[c] = value
            if columns < width:
                _normal(mesh, looks.bumps, corners, face, b, frame, read, columns, values)
            weights += weight
            for c in range(width):
                sums[c] += weight * values[c]
        for c in range(width):
            result[row, c] = sums[c] / weights


@njit(cache=True, nogil=True, error_model="numpy")
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _project(mesh, cells, row, face, frame, b):
    """Barycentrics of a cell's centre on a triangle's plane, in `b`; edges in rows 0 and 1 of `frame`. Returns the signed distance."""
    vertices, faces, size = mesh
    e1, e2, normal, q = frame[0], frame[1], frame[2], frame[3]
    c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
    for k in range(3):
        e1[k] = np.float64(vertices[c1, k]) - np.float64(vertices[c0, k])
        e2[k] = np.float64(vertices[c2, k]) - np.float64(vertices[c0, k])
        q[k] = (cells[row, k] + 0.5) * size[k] - np.float64(vertices[c0, k])
    cross(e1, e2, normal)
    normalize(normal)
    distance = _dot(q, normal)
    for k in range(3):
        q[k] -= distance * normal[k]
    d11, d12, d22, q1, q2 = _dot(e1, e1), _dot(e1, e2), _dot(e2, e2), _dot(q, e1), _dot(q, e2)
    scale = d11 * d22 - d12 * d12
    b[1] = 0.0 if scale == 0 else (d22 * q1 - d12 * q2) / scale
    b[2] = 0.0 if scale == 0 else (d11 * q2 - d12 * q1) / scale
    b[0] = 1 - b[1] - b[2]
    return distance


@njit(cache=True, nogil=True, error_model="numpy")
def _read(mesh, texels, looks, corners, face, b, offset, frame, read):
    """All texture values of a pair."""
    _, faces, size = mesh
    surface = corners.surface[face]
    c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
    for i in range(looks.lookups[surface], looks.lookups[surface + 1]):
        uv_set = texels.lookups[i, 7]
        det = _gradients(corners.uv, uv_set, c0, c1, c2, frame)
        level = 0.0
        if abs(det) >= FLAT:
            along = math.sqrt(math.sqrt(_dot(frame[4], frame[4])) * math.sqrt(_dot(frame[5], frame[5])))
            largest = max(size[0], size[1], size[2])
            level = math.log2(largest / along * abs(det) * texels.levels[texels.lookups[i, 0], 1]) + offset
            if not math.isfinite(level):
                level = 0.0
        u = corners.uv[uv_set, c0, 0] * b[0] + corners.uv[uv_set, c1, 0] * b[1] + corners.uv[uv_set, c2, 0] * b[2]
        v = corners.uv[uv_set, c0, 1] * b[0] + corners.uv[uv_set, c1, 1] * b[1] + corners.uv[uv_set, c2, 1] * b[2]
        read_texture(texels, i, level, u, v, texels.lookups[i, 4], texels.lookups[i, 5], read)


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
def _normal(mesh, bumps, corners, face, b, frame, read, out, values):
    """The shading normal of a pair, in three columns of `values`; only a mapped one has unit length."""
    _, faces, _ = mesh
    c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
    n = frame[2]
    for k in range(3):
        n[k] = corners.normals[c0, k] * b[0] + corners.normals[c1, k] * b[1] + corners.normals[c2, k] * b[2]
    surface = corners.surface[face]
    place = int(bumps[surface, 0])
    if place >= 0:
        tangent, bitangent = frame[4], frame[5]
        det = _gradients(corners.uv, int(bumps[surface, 1]), c0, c1, c2, frame)
        if abs(det) < FLAT:
            tangent[0], tangent[1], tangent[2] = 1.0, 0.0, 0.0
            bitangent[0], bitangent[1], bitangent[2] = 0.0, 1.0, 0.0
        else:
            normalize(tangent)
            normalize(bitangent)
        x, y, z = read[place] * 2 - 1, read[place + 1] * 2 - 1, read[place + 2] * 2 - 1
        for k in range(3):
            n[k] = x * tangent[k] + y * bitangent[k] + z * n[k]
        normalize(n)
    for k in range(3):
        values[out + k] = n[k]
