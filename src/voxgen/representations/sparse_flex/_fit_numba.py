"""The fit of weights, compiled: each cell by itself, on threads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from voxgen.ops.flexicubes._table import EDGES

ANCHOR = 0.02
"""How much the mean of the crossings counts beside the planes at the corners, each of which counts 1."""
LOOK = 4
"""How often the planes are weighed again: 1 / (1 + (distance / NARROW)²), so that those of another part of the surface count less."""
NARROW = 0.15
LOW, HIGH = float(np.log(0.0101)), float(np.log(1.9899))
"""Range of the logarithms of alpha and beta: what a network's activations can give."""
STEPS = 24
STEP = 0.8
"""Most that a logarithm changes in one step."""
CLOSE = 1e-4
"""Vertices this near to where they should be, in cells, are there."""
STALLED = 1e-3
"""The fit ends where a step brings it nearer by a smaller share than this."""
DAMPING = 1e-4
BETA = 8
GAMMA = 20
PARAMETERS = 20
"""Logarithms of 8 alpha, 12 beta; then gamma itself."""
_ENDS = np.array(EDGES, np.int64)


class FitProblem(NamedTuple):
    """cubes: (n, 8) int32 corners of cells.   value: (m,), normal: (m, 3), position: (m, 3) float64 of corners, in cells, on the lattice.
    first: (n + 1,) int64, vertices of cell i are first[i]:first[i + 1].   edges: (v,) int16 bits of the edges of a vertex.
    dual: (n, 3) float64, where in its cell the vertex of a cell with a single one should be, in [0, 1]; NaN where that is not known.
    """

    cubes: Tensor
    value: Tensor
    normal: Tensor
    position: Tensor
    first: Tensor
    edges: Tensor
    dual: Tensor


def start(cells: int) -> Tensor:
    """Weights of 1, and gamma in the middle."""
    weights = torch.zeros(cells, GAMMA + 1, dtype=torch.float64)
    weights[:, GAMMA] = 0.5
    return weights


def fit(problem: FitProblem, moved: Tensor, cells: Tensor, weights: Tensor, gaps: Tensor) -> None:
    """Fit some cells, for corners that were moved by `moved` (m, 3): change their `weights` (n, 21), which begin where they are, and
    write how far each of their vertices still is from where it should be to `gaps` (v, 3)."""
    cubes, value, normal, position, first, edges, dual = (t.contiguous().numpy() for t in problem)
    places = (cubes, value, normal, position, moved.numpy(), first, edges, dual, cells.numpy(), _ENDS)
    _fit(*places, get_num_threads(), weights.numpy(), gaps.numpy())  # pyright: ignore[reportCallIssue] (numba's stub of prange functions)


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(m, r, x):
    """x = m⁻¹ r for a positive definite m (3, 3)."""
    c0 = m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1]
    c1 = m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2]
    c2 = m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0]
    det = m[0, 0] * c0 + m[0, 1] * c1 + m[0, 2] * c2
    x[0] = (r[0] * c0 + r[1] * (m[0, 2] * m[2, 1] - m[0, 1] * m[2, 2]) + r[2] * (m[0, 1] * m[1, 2] - m[0, 2] * m[1, 1])) / det
    x[1] = (r[0] * c1 + r[1] * (m[0, 0] * m[2, 2] - m[0, 2] * m[2, 0]) + r[2] * (m[0, 2] * m[1, 0] - m[0, 0] * m[1, 2])) / det
    x[2] = (r[0] * c2 + r[1] * (m[0, 1] * m[2, 0] - m[0, 0] * m[2, 1]) + r[2] * (m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0])) / det


@njit(cache=True, nogil=True, error_model="numpy")
def _place(bits, s, p, ends, q, u, weight, v):
    """Crossings u (12, 3) and their shares `weight` (12,) of the edges in `bits`, and the dual vertex v. q: logarithms."""
    total = 0.0
    v[:] = 0.0
    for e in range(12):
        if not (bits >> e) & 1:
            continue
        a, b = ends[e, 0], ends[e, 1]
        one, two = abs(s[a]) * np.exp(q[a]), abs(s[b]) * np.exp(q[b])
        t = one / (one + two) if one + two > 0 else 0.5
        weight[e] = np.exp(q[BETA + e])
        total += weight[e]
        for k in range(3):
            u[e, k] = p[a, k] + t * (p[b, k] - p[a, k])
            v[k] += weight[e] * u[e, k]
    v /= total
    weight /= total


@njit(cache=True, nogil=True, error_model="numpy")
def _target(bits, s, g, p, ends, middle, m, r, target):
    """Where the planes at the ends of a vertex's edges meet; returns how much they differ, 0 where they are parallel."""
    used = 0
    for e in range(12):
        if (bits >> e) & 1:
            used |= (1 << ends[e, 0]) | (1 << ends[e, 1])
    x, y, z, total = 0.0, 0.0, 0.0, 0.0
    target[:] = middle
    for look in range(LOOK):
        m[:] = 0.0
        r[:] = 0.0
        x, y, z, total, count = 0.0, 0.0, 0.0, 0.0, 0
        for c in range(8):
            if not (used >> c) & 1:
                continue
            height = g[c, 0] * p[c, 0] + g[c, 1] * p[c, 1] + g[c, 2] * p[c, 2] - s[c]
            off = (g[c, 0] * target[0] + g[c, 1] * target[1] + g[c, 2] * target[2] - height) / NARROW
            near = 1.0 / (1.0 + off * off) if look > 0 else 1.0
            count += 1
            total += near
            x, y, z = x + near * g[c, 0], y + near * g[c, 1], z + near * g[c, 2]
            for i in range(3):
                r[i] += near * g[c, i] * height
                for j in range(3):
                    m[i, j] += near * g[c, i] * g[c, j]
        for i in range(3):
            m[i, i] += ANCHOR * count
            r[i] += ANCHOR * count * middle[i]
        _solve(m, r, target)
    for i in range(3):
        target[i] = min(max(target[i], 0.0), 1.0)
    return 1.0 - np.sqrt(x * x + y * y + z * z) / total


@njit(cache=True, nogil=True, error_model="numpy")
def _slopes(bits, s, p, ends, q, u, weight, v, corners, jacobian):
    """jacobian (20, 3) of the vertex by the logarithms; alpha only if `corners`."""
    jacobian[:] = 0.0
    for e in range(12):
        if not (bits >> e) & 1:
            continue
        a, b = ends[e, 0], ends[e, 1]
        one, two = abs(s[a]) * np.exp(q[a]), abs(s[b]) * np.exp(q[b])
        slope = one * two / (one + two) ** 2 if one + two > 0 else 0.0
        for k in range(3):
            jacobian[BETA + e, k] = weight[e] * (u[e, k] - v[k])
            if corners:
                jacobian[a, k] += weight[e] * slope * (p[b, k] - p[a, k])
                jacobian[b, k] -= weight[e] * slope * (p[b, k] - p[a, k])


@njit(cache=True, nogil=True, error_model="numpy")
def _step(jacobian, q, r, m, x, step, held):
    """The smallest change of the logarithms that brings the vertex nearer by r; none beyond the range."""
    held[:] = False
    for _ in range(3):
        m[:] = 0.0
        for c in range(PARAMETERS):
            if not held[c]:
                for i in range(3):
                    for j in range(3):
                        m[i, j] += jacobian[c, i] * jacobian[c, j]
        for i in range(3):
            m[i, i] += DAMPING
        _solve(m, r, x)
        again = False
        for c in range(PARAMETERS):
            step[c] = 0.0
            if held[c]:
                continue
            step[c] = jacobian[c, 0] * x[0] + jacobian[c, 1] * x[1] + jacobian[c, 2] * x[2]
            if (q[c] <= LOW and step[c] < 0) or (q[c] >= HIGH and step[c] > 0):
                held[c] = True
                again = True
        if not again:
            return
    for c in range(PARAMETERS):
        if held[c]:
            step[c] = 0.0


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fit(index, value, normal, position, moved, first, edges, dual, cells, ends, workers, out, gaps):
    for worker in prange(workers):
        s, g, lattice, p = np.empty(8), np.empty((8, 3)), np.empty((8, 3)), np.empty((8, 3))
        u, weight, v, target, r, x = np.empty((12, 3)), np.zeros(12), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        middle, none = np.empty(3), np.zeros(PARAMETERS)
        m, jacobian, step, held = np.empty((3, 3)), np.empty((PARAMETERS, 3)), np.empty(PARAMETERS), np.empty(PARAMETERS, np.bool_)
        for at in range(worker, len(cells), workers):
            cell = cells[at]
            if first[cell] == first[cell + 1]:
                continue
            for c in range(8):
                row = index[cell, c]
                s[c] = value[row]
                for k in range(3):
                    g[c, k] = normal[row, k]
                    lattice[c, k] = position[row, k] - position[index[cell, 0], k]
                    p[c, k] = lattice[c, k] + moved[row, k]
            q, sharp = out[cell], 0.0
            for vertex in range(first[cell], first[cell + 1]):
                bits = edges[vertex]
                weight[:] = 0.0
                _place(bits, s, lattice, ends, none, u, weight, middle)
                weight[:] = 0.0
                _place(bits, s, p, ends, q, u, weight, v)
                sharp = max(sharp, _target(bits, s, g, lattice, ends, middle, m, r, target))
                if first[cell + 1] - first[cell] == 1 and dual[cell, 0] == dual[cell, 0]:
                    target[:] = dual[cell]
                before = np.inf
                for _ in range(STEPS):
                    for k in range(3):
                        r[k] = target[k] - v[k]
                    gap = np.sqrt(r[0] ** 2 + r[1] ** 2 + r[2] ** 2)
                    if gap < CLOSE or gap > before * (1 - STALLED):
                        break
                    before = gap
                    _slopes(bits, s, p, ends, q, u, weight, v, first[cell + 1] - first[cell] == 1, jacobian)
                    _step(jacobian, q, r, m, x, step, held)
                    most = np.abs(step).max()
                    scale = min(1.0, STEP / most) if most > 0 else 0.0
                    for c in range(PARAMETERS):
                        q[c] = min(max(q[c] + scale * step[c], LOW), HIGH)
                    weight[:] = 0.0
                    _place(bits, s, p, ends, q, u, weight, v)
                for k in range(3):
                    gaps[vertex, k] = target[k] - v[k]
            out[cell, GAMMA] = 0.005 + 0.99 * min(max(sharp, 0.0), 1.0)
