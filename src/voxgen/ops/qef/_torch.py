"""Vectorised engine: closed-form minimum first; quadratics whose minimum leaves the box are searched on its faces and edges."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ._reference import PULL, pulled

CHUNK = 1 << 18
"""Quadratics searched at a time, about 1 kB each."""


def solve_box_qef(q: Tensor, low: Tensor, high: Tensor, anchor: Tensor) -> Tensor:
    """See `voxgen.ops.qef.solve_box_qef`."""
    a, b = pulled(q.double(), anchor.double(), PULL[q.dtype])
    return minimise(a, b, low.double(), high.double()).to(q.dtype)


def minimise(a: Tensor, b: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum of vᵀ A v + 2 bᵀ v in low <= v <= high, A (n, 3, 3) positive definite: float64 (n, 3)."""
    v = _solve(a, b)
    outside = ((v < low) | (v > high)).any(1).nonzero()[:, 0]
    for rows in outside.split(CHUNK):
        v = v.index_copy(0, rows, _on_faces(a[rows], b[rows], low[rows], high[rows]))
    return v


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """The solution of A v = -b by L D Lᵀ, (n, 3)."""
    a00, a01, a02 = a[:, 0].unbind(1)
    a11, a12, a22 = a[:, 1, 1], a[:, 1, 2], a[:, 2, 2]
    b0, b1, b2 = b.unbind(1)
    l1, l2 = a01 / a00, a02 / a00
    d1, e = a11 - l1 * a01, a12 - l1 * a02
    l3 = e / d1
    y1 = l1 * b0 - b1
    z = (l2 * b0 - b2 - l3 * y1) / (a22 - l2 * a02 - l3 * e)
    y = y1 / d1 - l3 * z
    return torch.stack((-b0 / a00 - l1 * y - l2 * z, y, z), 1)


def _on_faces(a: Tensor, b: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum over the faces, edges and corners of the box, (n, 3)."""
    best, value = low, torch.full_like(low[:, 0], torch.inf)

    def offer(point: Tensor, allowed: Tensor | None = None) -> None:
        nonlocal best, value
        objective = (point * ((a @ point[:, :, None])[:, :, 0] + 2 * b)).sum(1).detach()
        better = objective < value
        if allowed is not None:
            better &= allowed
        best, value = torch.where(better[:, None], point, best), torch.where(better, objective, value)

    bounds = (low, high)
    for k in range(3):  # the axis that is held on a face, and the one that is free on an edge
        u, v = (k + 1) % 3, (k + 2) % 3
        for bound in bounds:
            at_k = bound[:, k]
            ru, rv = -b[:, u] - a[:, u, k] * at_k, -b[:, v] - a[:, v, k] * at_k
            share = a[:, u, v] / a[:, u, u]
            at_v = (rv - share * ru) / (a[:, v, v] - share * a[:, u, v])
            at_u = ru / a[:, u, u] - share * at_v
            inside = (low[:, u] <= at_u) & (at_u <= high[:, u]) & (low[:, v] <= at_v) & (at_v <= high[:, v])
            offer(_in_order(k, at_k, at_u, at_v), inside)
        for first, second in product(bounds, bounds):
            at_u, at_v = first[:, u], second[:, v]
            # On an edge the best of a convex quadratic lies at its minimum or, beyond the ends, at the nearer corner.
            at_k = (-b[:, k] - a[:, k, u] * at_u - a[:, k, v] * at_v) / a[:, k, k]
            offer(_in_order(k, torch.minimum(torch.maximum(at_k, low[:, k]), high[:, k]), at_u, at_v))
    return best


def _in_order(k: int, at_k: Tensor, at_u: Tensor, at_v: Tensor) -> Tensor:
    """Coordinates along the axes k, k + 1, k + 2 (modulo 3) as rows x, y, z."""
    parts = {k: at_k, (k + 1) % 3: at_u, (k + 2) % 3: at_v}
    return torch.stack([parts[axis] for axis in range(3)], 1)
