"""Sampling with plain torch operations on any device: one pass over the points for each tap, no (p, 8, c) tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._torch import rows_near

from ._reference import SMALLEST_SUM


def sample(kind: str, feats: Tensor, grid: VoxelGrid, points: Tensor, batch: Tensor) -> Tensor:
    """See `_reference.sample`."""
    index = block_index(grid, backend="torch")
    wide = feats.to(torch.promote_types(feats.dtype, torch.float32))
    outside = torch.tensor(grid.resolution, device=points.device) + 1
    points = torch.minimum(points.clamp(min=-2), outside.to(points))
    if kind != "trilinear":
        x, y, z = (points.floor() if kind == "nearest" else points.trunc()).int().unbind(1)
        rows = rows_near(index, batch, x, y, z)[:, None]
        return _WeightedRows.apply(wide, (rows >= 0).to(wide), rows).to(feats.dtype)
    base = (points.detach() - 0.5).floor()
    part = points - 0.5 - base
    x, y, z = base.int().unbind(1)
    rows = torch.stack([rows_near(index, batch, x + i, y + j, z + k) for i in (0, 1) for j in (0, 1) for k in (0, 1)], 1)
    (u, v, w), (u1, v1, w1) = part.unbind(1), (1 - part).unbind(1)
    weights = torch.stack([a * b * c for a in (u1, u) for b in (v1, v) for c in (w1, w)], 1)
    weights = torch.where(rows >= 0, weights, 0)
    total = weights.sum(1, keepdim=True)
    share = torch.where(total > SMALLEST_SUM, weights / total.clamp(min=SMALLEST_SUM), (weights / SMALLEST_SUM).detach())
    return _WeightedRows.apply(wide, share.to(wide), rows).to(feats.dtype)


class _WeightedRows(torch.autograd.Function):
    """Σ_k share[:, k] · feats[rows[:, k]] over the rows that are not -1.

    Shares of a point sum to 1 or are cut from the graph, so their gradient is only defined up to a constant a point; it is
    taken relative to the first tap that exists, which makes it exactly 0 where a single one does.
    """

    @staticmethod
    def forward(ctx: Any, feats: Tensor, share: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(feats, share, rows)
        out = feats.new_zeros(len(rows), feats.shape[1])
        for k in range(rows.shape[1]):
            out += share[:, k, None] * _rows_of(feats, rows[:, k])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        feats, share, rows = ctx.saved_tensors
        grad_feats = grad_share = None
        if ctx.needs_input_grad[0]:
            grad_feats = torch.zeros_like(feats)
            for k in range(rows.shape[1]):
                found = (rows[:, k] >= 0).nonzero()[:, 0]
                _add_rows(grad_feats, rows[found, k], share[found, k, None] * grad[found])
        if ctx.needs_input_grad[1]:
            along = torch.stack([(grad * _rows_of(feats, rows[:, k])).sum(1) for k in range(rows.shape[1])], 1)
            first = (rows >= 0).int().argmax(1, keepdim=True)
            grad_share = torch.where(rows >= 0, along - along.gather(1, first), 0)
        return grad_feats, grad_share, None


def _rows_of(feats: Tensor, rows: Tensor) -> Tensor:
    """Rows of feats, 0 for row -1."""
    if len(feats) == 0:
        return feats.new_zeros(len(rows), feats.shape[1])
    return feats[rows.clamp(min=0)].masked_fill_((rows < 0)[:, None], 0)


def _add_rows(total: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values to rows that may repeat, in the same order in each run: each device has one operation that keeps it."""
    if total.device.type == "cpu":
        total.index_add_(0, rows, values)
    else:
        total.index_put_((rows.long(),), values, accumulate=True)
