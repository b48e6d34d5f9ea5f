"""The definition, tap by tap."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

SMALLEST_SUM = 1e-12
"""Weights that sum to less are divided by this."""


def sample(kind: str, feats: Tensor, grid: VoxelGrid, points: Tensor, batch: Tensor) -> Tensor:
    """Kind is "trilinear", "nearest" (floor) or "truncated" (nearest, rounding towards zero)."""
    outside = torch.tensor(grid.resolution, device=points.device) + 1
    points = torch.minimum(points.clamp(min=-2), outside.to(points))  # far points stay outside, and fit in int32
    if kind == "trilinear":
        base = (points.detach() - 0.5).floor()
        part = points - 0.5 - base
        offsets = torch.tensor(list(itertools.product((0, 1), repeat=3)), device=points.device)
        cells = base.int()[:, None] + offsets.int()
        weights = torch.where(offsets.bool(), part[:, None], 1 - part[:, None]).prod(-1)
    else:
        cells = (points.floor() if kind == "nearest" else points.trunc()).int()[:, None]
        weights = torch.ones_like(points[:, :1])
    taps = cells.shape[1]
    coords = torch.cat((batch.int().repeat_interleave(taps)[:, None], cells.reshape(-1, 3)), 1)
    rows = grid.rows_of(coords).reshape(-1, taps)
    weights = torch.where(rows >= 0, weights, 0)
    total = weights.sum(1, keepdim=True)
    share = torch.where(total > SMALLEST_SUM, weights / total.clamp(min=SMALLEST_SUM), (weights / SMALLEST_SUM).detach())
    wide = feats.to(torch.promote_types(feats.dtype, torch.float32))
    padded = torch.cat((wide, wide.new_zeros(1, wide.shape[1])))  # row -1 is absent
    values, share = padded[rows], share.to(wide)
    # Shares sum to a constant, so their gradient is the same for features relative to the first tap that exists. Written
    # like this it is exactly 0, not the rounding of a difference, where there is only one.
    first = values.gather(1, (rows >= 0).int().argmax(1).view(-1, 1, 1).expand(-1, 1, values.shape[2]))
    result = torch.einsum("pk,pkc->pc", share, values - first) + share.sum(1, keepdim=True).detach() * first[:, 0]
    return result.to(feats.dtype)
