"""The original's evaluation, compiled: cells on threads, the triangles of each in order. See `_trellis2` for what is done."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from ._numba_look import READ, cross, mixed, normalize, read_texture
from ._tables import ALPHA, BASE_COLOR, EMISSIVE, METALLIC, NORMAL, ROUGHNESS
from ._trellis2 import FLAT

BLOCK = 512
"""Cells that a thread takes at a time."""


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def add_pairs(vertices, faces, size, tables, cells, triangle, bounds, offset, begin, end, result):
    """Fill result[begin:end]; cell r has the triangles triangle[bounds[r]:bounds[r + 1]]."""
    width = result.shape[1]
    blocks = (end - begin + BLOCK - 1) // BLOCK
    for block in prange(blocks):
        world, frame = np.empty((3, 3), np.float64), np.empty((6, 3), np.float64)
        read, values, sums = np.empty(READ, np.float64), np.empty(READ, np.float64), np.empty(width, np.float64)
        for row in range(begin + block * BLOCK, min(end, begin + (block + 1) * BLOCK)):
            sums[:] = 0
            weights = 0.0
            for pair in range(bounds[row], bounds[row + 1]):
                weight = _evaluate(vertices, faces, size, tables, cells[row], triangle[pair], offset, world, frame, read, values)
                weights += weight
                for c in range(width):
                    sums[c] += weight * values[c]
            for c in range(width):
                result[row, c] = sums[c] / weights


@njit(cache=True, nogil=True, error_model="numpy")
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _evaluate(vertices, faces, size, tables, cell, face, offset, world, frame, read, values):
    """Write the values of one pair; returns its weight."""
    e1, e2, normal, q = frame[0], frame[1], frame[2], frame[3]
    c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
    for k in range(3):
        world[0, k], world[1, k], world[2, k] = vertices[c0, k], vertices[c1, k], vertices[c2, k]
        e1[k], e2[k] = world[1, k] - world[0, k], world[2, k] - world[0, k]
        q[k] = (cell[k] + 0.5) * size[k] - world[0, k]
    cross(e1, e2, normal)
    normalize(normal)
    distance = _dot(q, normal)
    for k in range(3):
        q[k] -= distance * normal[k]
    d11, d12, d22, q1, q2 = _dot(e1, e1), _dot(e1, e2), _dot(e2, e2), _dot(q, e1), _dot(q, e2)
    scale = d11 * d22 - d12 * d12
    b1 = 0.0 if scale == 0 else (d22 * q1 - d12 * q2) / scale
    b2 = 0.0 if scale == 0 else (d11 * q2 - d12 * q1) / scale
    b0 = 1 - b1 - b2
    surface = tables.surface[face]
    largest = max(size[0], size[1], size[2])
    for i in range(tables.surface_lookups[surface], tables.surface_lookups[surface + 1]):
        lookup = tables.lookups[i]
        uv = tables.uv[lookup[7]]
        det = _gradients(uv, c0, c1, c2, e1, e2, frame[4], frame[5])
        level = 0.0
        if abs(det) >= FLAT:
            along = math.sqrt(math.sqrt(_dot(frame[4], frame[4])) * math.sqrt(_dot(frame[5], frame[5])))
            level = math.log2(largest / along * abs(det) * tables.levels[lookup[0], 1]) + offset
            if not math.isfinite(level):
                level = 0.0
        u, v = mixed(uv, 0, c0, c1, c2, b0, b1, b2), mixed(uv, 1, c0, c1, c2, b0, b1, b2)
        texels = (tables.lookups, tables.cutoffs, tables.levels, tables.bytes, tables.floats, tables.decode)
        read_texture(texels, i, level, u, v, lookup[4], lookup[5], read)
    _look(tables, surface, read, values)
    if tables.result_places[NORMAL] >= 0:
        _normal(tables, surface, c0, c1, c2, b0, b1, b2, e1, e2, frame, read, values)
    return 1 - distance


@njit(cache=True, nogil=True, error_model="numpy")
def _gradients(uv, c0, c1, c2, e1, e2, along_u, along_v):
    """How the position changes with u and v, times the determinant; returns the determinant."""
    du1, dv1 = uv[c1, 0] - uv[c0, 0], uv[c1, 1] - uv[c0, 1]
    du2, dv2 = uv[c2, 0] - uv[c0, 0], uv[c2, 1] - uv[c0, 1]
    for k in range(3):
        along_u[k] = dv2 * e1[k] - dv1 * e2[k]
        along_v[k] = du1 * e2[k] - du2 * e1[k]
    return du1 * dv2 - dv1 * du2


@njit(cache=True, nogil=True, error_model="numpy")
def _texture(tables, surface, slot, channel, read):
    place = tables.places[surface, slot]
    return 1.0 if place < 0 else read[place + channel]


@njit(cache=True, nogil=True, error_model="numpy")
def _look(tables, surface, read, values):
    factors, result = tables.factors[surface], tables.result_places
    for slot, factor, width in ((BASE_COLOR, 0, 3), (METALLIC, 3, 1), (ROUGHNESS, 4, 1), (EMISSIVE, 5, 3)):
        if result[slot] >= 0:
            for k in range(width):
                values[result[slot] + k] = _texture(tables, surface, slot, k, read) * factors[factor + k]
    if result[ALPHA] >= 0:
        mode = tables.modes[surface, 0]
        value = _texture(tables, surface, ALPHA, 0, read) * factors[8]
        if mode == 0:
            value = 1.0
        elif mode == 1:
            value = 1.0 if value >= factors[9] else 0.0
        values[result[ALPHA]] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _normal(tables, surface, c0, c1, c2, b0, b1, b2, e1, e2, frame, read, values):
    out, place = tables.result_places[NORMAL], tables.places[surface, NORMAL]
    for k in range(3):
        values[out + k] = mixed(tables.normals, k, c0, c1, c2, b0, b1, b2)
    if place < 0:
        return
    tangent, bitangent, n = frame[4], frame[5], frame[2]
    det = _gradients(tables.uv[tables.normal_uv[surface]], c0, c1, c2, e1, e2, tangent, bitangent)
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
