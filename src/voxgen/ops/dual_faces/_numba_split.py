"""Cutting of quads, compiled. The arithmetic is that of `_triangulate`, operation by operation, so the cuts are equal."""

from __future__ import annotations

from numba import njit, prange

RULES = {"first": 0, "weight": 1, "angle": 2, "trellis2": 3}


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def cut_quads(rule, quads, number, coords, dual, weight, shape, frame, faces):  # pyright: ignore
    """Write two triangles a quad. number: place of each row among the vertices, empty if that is the row itself.
    frame: (2, 3) origin and voxel size in the dtype of `dual`, as `shape`, the sides of a cell over its longest."""
    renumber = len(number) > 0
    for q in prange(len(quads)):
        a, b, c, d = quads[q, 0], quads[q, 1], quads[q, 2], quads[q, 3]
        if rule == 0:
            first = True
        elif rule == 1:
            first = weight[a] * weight[c] > weight[b] * weight[d]
        elif rule == 2:
            first = _flatter_first(coords, dual, shape, a, b, c, d)
        else:
            first = _has_area(coords, dual, frame, a, b, c)
        if renumber:
            a, b, c, d = number[a], number[b], number[c], number[d]
        i = 2 * q
        faces[i, 0], faces[i, 1] = a, b
        if first:
            faces[i, 2], faces[i + 1, 0], faces[i + 1, 1], faces[i + 1, 2] = c, a, c, d
        else:
            faces[i, 2], faces[i + 1, 0], faces[i + 1, 1], faces[i + 1, 2] = d, d, b, c


@njit(cache=True, nogil=True, error_model="numpy")
def _flatter_first(coords, dual, shape, a, b, c, d):  # pyright: ignore
    p, q, r, s = (
        _local(coords, dual, shape, a, a),
        _local(coords, dual, shape, a, b),
        _local(coords, dual, shape, a, c),
        _local(coords, dual, shape, a, d),
    )
    one = _flatness(_cross(_minus(q, p), _minus(r, p)), _cross(_minus(r, p), _minus(s, p)))
    other = _flatness(_cross(_minus(q, p), _minus(s, p)), _cross(_minus(q, s), _minus(r, s)))
    return one >= other


@njit(cache=True, nogil=True, error_model="numpy")
def _has_area(coords, dual, frame, a, b, c):  # pyright: ignore
    p, q, r = _world(coords, dual, frame, a), _world(coords, dual, frame, b), _world(coords, dual, frame, c)
    normal = _cross(_minus(q, p), _minus(r, p))
    return _dot(normal, normal) > 0


@njit(cache=True, nogil=True, error_model="numpy")
def _local(coords, dual, shape, origin, row):  # pyright: ignore
    """Position relative to the lowest corner of cell `origin`, in units of the longest side of a cell."""
    real = dual.dtype.type
    x = (real(coords[row, 1] - coords[origin, 1]) + dual[row, 0]) * shape[0]
    y = (real(coords[row, 2] - coords[origin, 2]) + dual[row, 1]) * shape[1]
    z = (real(coords[row, 3] - coords[origin, 3]) + dual[row, 2]) * shape[2]
    return x, y, z


@njit(cache=True, nogil=True, error_model="numpy")
def _world(coords, dual, frame, row):  # pyright: ignore
    real = dual.dtype.type
    x = frame[0, 0] + (real(coords[row, 1]) + dual[row, 0]) * frame[1, 0]
    y = frame[0, 1] + (real(coords[row, 2]) + dual[row, 1]) * frame[1, 1]
    z = frame[0, 2] + (real(coords[row, 3]) + dual[row, 2]) * frame[1, 2]
    return x, y, z


@njit(cache=True, nogil=True, error_model="numpy")
def _flatness(n, m):  # pyright: ignore
    square, dot = _dot(n, n) * _dot(m, m), _dot(n, m)
    return dot * abs(dot) / square if square > 0 else -1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _minus(a, b):  # pyright: ignore
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _dot(a, b):  # pyright: ignore
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _cross(a, b):  # pyright: ignore
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
