"""Compiled CPU engine; `minimise` also serves inside other kernels."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ._reference import PULL

SMALLEST = float(np.finfo(np.float32).tiny)


def solve_box_qef(q: Tensor, low: Tensor, high: Tensor, anchor: Tensor) -> Tensor:
    """See `voxgen.ops.qef.solve_box_qef`."""
    out = np.empty((len(q), 3), np.float64)
    _solve_all(_array(q), _array(low), _array(high), _array(anchor), PULL[q.dtype], out)
    return torch.from_numpy(out).to(q.dtype)


def _array(t: Tensor) -> np.ndarray:
    return np.ascontiguousarray(t.detach().double().numpy())


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _solve_all(q, low, high, anchor, share, out):
    for i in prange(len(q)):
        pull = share * (q[i, 0] + q[i, 4] + q[i, 7]) + SMALLEST
        a = (q[i, 0] + pull, q[i, 1], q[i, 2], q[i, 4] + pull, q[i, 5], q[i, 7] + pull)
        b = (q[i, 3] - pull * anchor[i, 0], q[i, 6] - pull * anchor[i, 1], q[i, 8] - pull * anchor[i, 2])
        v = minimise(a, b, (low[i, 0], low[i, 1], low[i, 2]), (high[i, 0], high[i, 1], high[i, 2]))
        out[i, 0], out[i, 1], out[i, 2] = v


@njit(cache=True, nogil=True, error_model="numpy")
def minimise(a, b, low, high):
    """The minimum of vᵀ A v + 2 bᵀ v in the box; a = (a00, a01, a02, a11, a12, a22) positive definite. All arguments are tuples."""
    a00, a01, a02, a11, a12, a22 = a
    l1, l2 = a01 / a00, a02 / a00
    d1, e = a11 - l1 * a01, a12 - l1 * a02
    l3 = e / d1
    y1 = l1 * b[0] - b[1]
    z = (l2 * b[0] - b[2] - l3 * y1) / (a22 - l2 * a02 - l3 * e)
    y = y1 / d1 - l3 * z
    x = -b[0] / a00 - l1 * y - l2 * z
    if low[0] <= x <= high[0] and low[1] <= y <= high[1] and low[2] <= z <= high[2]:
        return x, y, z
    return _minimise_on_faces((a00, a01, a02, a01, a11, a12, a02, a12, a22), b, low, high)


@njit(cache=True, nogil=True, error_model="numpy")
def _objective(m, b, x, y, z):
    return (
        x * (m[0] * x + m[1] * y + m[2] * z + 2 * b[0])
        + y * (m[3] * x + m[4] * y + m[5] * z + 2 * b[1])
        + z * (m[6] * x + m[7] * y + m[8] * z + 2 * b[2])
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _minimise_on_faces(m, b, low, high):
    """The minimum over the faces, edges and corners of the box; m is the whole matrix, row by row."""
    best = np.inf
    bx, by, bz = low
    for k in range(3):  # the axis that is held on a face, and the one that is free on an edge
        u, v = (k + 1) % 3, (k + 2) % 3
        muu, muv, mvv = m[4 * u], m[3 * u + v], m[4 * v]
        for upper_k in range(2):
            at_k = high[k] if upper_k else low[k]
            ru, rv = -b[u] - m[3 * u + k] * at_k, -b[v] - m[3 * v + k] * at_k
            share = muv / muu
            at_v = (rv - share * ru) / (mvv - share * muv)
            at_u = ru / muu - share * at_v
            if low[u] <= at_u <= high[u] and low[v] <= at_v <= high[v]:
                x, y, z = _in_order(k, at_k, at_u, at_v)
                value = _objective(m, b, x, y, z)
                if value < best:
                    best, bx, by, bz = value, x, y, z
        for upper_u in range(2):
            at_u = high[u] if upper_u else low[u]
            for upper_v in range(2):
                at_v = high[v] if upper_v else low[v]
                # On an edge the best of a convex quadratic lies at its minimum or, beyond the ends, at the nearer corner.
                at_k = (-b[k] - m[3 * k + u] * at_u - m[3 * k + v] * at_v) / m[4 * k]
                at_k = max(low[k], min(at_k, high[k]))
                x, y, z = _in_order(k, at_k, at_u, at_v)
                value = _objective(m, b, x, y, z)
                if value < best:
                    best, bx, by, bz = value, x, y, z
    return bx, by, bz


@njit(cache=True, nogil=True)
def _in_order(k, at_k, at_u, at_v):
    """Coordinates along the axes k, k + 1, k + 2 (modulo 3) as x, y, z."""
    if k == 0:
        return at_k, at_u, at_v
    if k == 1:
        return at_v, at_k, at_u
    return at_u, at_v, at_k
