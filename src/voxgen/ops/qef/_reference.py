"""The definition: try all 27 ways to hold each axis at its lower bound, its upper bound, or neither; keep the best."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

PULL = {torch.float64: 1e-9, torch.float32: 1e-6}
"""Pull towards the anchor as a share of the trace, by the dtype in which the sums were made: above its rounding, which can
make a singular matrix indefinite, and far below what data say."""
FREE, LOW, HIGH = 0, 1, 2


def solve_box_qef(q: Tensor, low: Tensor, high: Tensor, anchor: Tensor) -> Tensor:
    """See `voxgen.ops.qef.solve_box_qef`."""
    a, b = pulled(q.double(), anchor.double(), PULL[q.dtype])
    return minimise_in_box(a, b, low.double(), high.double()).to(q.dtype)


def pulled(q: Tensor, anchor: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Matrix (n, 3, 3) and vector (n, 3) of the objective vᵀ A v + 2 bᵀ v, positive definite by the pull to the anchor."""
    a = q[:, [0, 1, 2, 1, 4, 5, 2, 5, 7]].reshape(-1, 3, 3)
    b = q[:, [3, 6, 8]]
    pull = share * (q[:, 0] + q[:, 4] + q[:, 7]) + torch.finfo(torch.float32).tiny
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return a + pull[:, None, None] * eye, b - pull[:, None] * anchor


def minimise_in_box(a: Tensor, b: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum of vᵀ A v + 2 bᵀ v in low <= v <= high, A (n, 3, 3) positive definite: float64 (n, 3)."""
    v = torch.linalg.solve(a, -b)
    outside = ((v < low) | (v > high)).any(1).nonzero()[:, 0]
    return v.index_copy(0, outside, _best_of_all(a[outside], b[outside], low[outside], high[outside]))


def _best_of_all(a: Tensor, b: Tensor, low: Tensor, high: Tensor) -> Tensor:
    state = torch.tensor(list(product((FREE, LOW, HIGH), repeat=3)), device=a.device)
    free = (state == FREE)[None]
    held = torch.where(state == LOW, low[:, None], high[:, None])
    held = torch.where(free, torch.zeros_like(held), held)

    # Rows of held axes become v = held; rows of free axes keep their equation with the held values moved to the right.
    both = (free[..., :, None] & free[..., None, :]).expand(len(a), -1, -1, -1)
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    matrix = torch.where(both, a[:, None], eye)
    right = torch.where(free, -b[:, None] - (a[:, None] @ held[..., None])[..., 0], held)
    v = torch.linalg.solve(matrix, right[..., None])[..., 0]

    inside = ((low[:, None] <= v) & (v <= high[:, None])).all(-1)
    objective = (v * ((a[:, None] @ v[..., None])[..., 0] + 2 * b[:, None])).sum(-1)
    best = objective.detach().masked_fill(~inside, torch.inf).argmin(1)
    return v[torch.arange(len(v), device=v.device), best]
