"""The definition: every Gaussian over every pixel, front to back."""

from __future__ import annotations

import torch
from torch import Tensor

from ._preset import SMALLEST_ALPHA, STOP
from ._projection import project
from ._view import View


def splat(means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """float64 tensors of one view → image (h, w, c) on black, and alpha (h, w)."""
    spots = project(means, rotations, scales, opacities, view)
    left, top, width, height = view.crop
    column = left + 0.5 + torch.arange(width, dtype=torch.float64, device=means.device)
    row = top + 0.5 + torch.arange(height, dtype=torch.float64, device=means.device)
    order = drawing_order(spots.depth, spots.visible)
    nothing = features.sum() * 0 + spots.opacity.sum() * 0  # so that a view of nothing has gradients of zero, not none
    image = nothing.expand(height, width, features.shape[1])
    through = 1 - nothing.expand(height, width)
    live = torch.ones(height, width, dtype=torch.bool, device=means.device)
    for i in order.tolist():
        dx, dy = spots.position[i, 0] - column, (spots.position[i, 1] - row)[:, None]
        xx, xy, yy = spots.conic[i]
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = (spots.opacity[i] * torch.exp(-sigma)).clamp(max=view.preset.alpha_max)
        drawn = live & (sigma >= 0) & (alpha >= SMALLEST_ALPHA)
        after = through * (1 - alpha)
        full = drawn & ((after < STOP) if view.preset.strict_stop else (after <= STOP))
        live = live & ~full
        alpha = torch.where(drawn & ~full, alpha, 0)
        image = image + (alpha * through)[..., None] * features[i]
        through = through * (1 - alpha)
    return image, 1 - through


def drawing_order(depth: Tensor, visible: Tensor) -> Tensor:
    """Rows of the visible Gaussians from near to far, by depth in float32; equal depths keep their order."""
    rows = visible.nonzero()[:, 0]
    return rows[depth.detach()[rows].float().sort(stable=True)[1]]
