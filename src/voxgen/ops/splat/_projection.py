"""From Gaussians in space to spots on the image: plain torch, float64, differentiable."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ._preset import FLOOR, SMALLEST_ALPHA
from ._view import View


class Spots(NamedTuple):
    """Gaussians as they lie on the image, float64.

    position: (n, 2) column and row of the centre, in pixels of the full image.   covariance: (n, 3) xx, xy, yy in px², after blur.
    conic: (n, 3) xx, xy, yy of its inverse.   opacity: (n,) after compensation.   depth: (n,) along the viewing axis.
    extent: (n, 2) half sides of the box outside of which alpha is below 1/255.
    visible: (n,) between near and far, and opaque enough to be drawn at all. Elsewhere the other fields are finite, and without meaning.
    """

    position: Tensor
    covariance: Tensor
    conic: Tensor
    opacity: Tensor
    depth: Tensor
    extent: Tensor
    visible: Tensor


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """(n, 4) [w, x, y, z] of any positive length → (n, 3, 3)."""
    w, x, y, z = normalize(quaternions, dim=1).unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def project(means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, view: View) -> Spots:
    """All Gaussians of one view; float64 in and out."""
    local = means @ view.rotation.T + view.translation
    depth = local[:, 2]
    visible = (depth >= view.near) if view.near_included else (depth > view.near)
    visible = visible & (depth <= view.far)
    local = torch.where(visible[:, None], local, local.new_tensor([0.0, 0.0, 1.0]))  # so that nothing divides by 0
    position, jacobian = _camera(local, view)
    half = jacobian @ view.rotation @ rotation_matrices(rotations) * scales[:, None]  # (n, 2, 3); its square is the covariance
    p, q = half.unbind(1)
    xx, xy, yy = (p * p).sum(1), (p * q).sum(1), (q * q).sum(1)
    before = torch.linalg.cross(p, q).square().sum(1)  # xx yy - xy², which cancels where a spot is thin
    blur = view.preset.blur
    after = before + blur * (xx + yy) + blur * blur
    visible = visible & (after > 0)
    after = torch.where(visible, after, 1)
    opacity = opacities * _compensation(before, after, view)
    visible = visible & (opacity >= SMALLEST_ALPHA)
    covariance = torch.stack((xx + blur, xy, yy + blur), 1)
    conic = torch.stack((covariance[:, 2], -xy, covariance[:, 0]), 1) / after[:, None]
    reach = 2 * (255 * opacity.detach()).clamp_min(1).log()
    extent = (reach[:, None] * covariance.detach()[:, ::2]).sqrt()
    return Spots(position, covariance, conic, opacity, depth, extent, visible)


def _camera(local: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Positions (n, 2) and Jacobians (n, 2, 3) of points in camera space."""
    x, y, z = local.unbind(1)
    k = view.intrinsics
    zero = torch.zeros_like(z)
    if view.orthographic:
        position = torch.stack((k[0, 0] * x + k[0, 2], k[1, 1] * y + k[1, 2]), 1)
        one = torch.ones_like(z)
        rows = (k[0, 0] * one, zero, zero), (zero, k[1, 1] * one, zero)
    else:
        over = z + view.preset.depth_offset
        position = torch.stack((k[0, 0] * x / over + k[0, 2], k[1, 1] * y / over + k[1, 2]), 1)
        tx, ty = (x / z).clamp(view.low[0], view.high[0]), (y / z).clamp(view.low[1], view.high[1])
        rows = (k[0, 0] / z, zero, -k[0, 0] * tx / z), (zero, k[1, 1] / z, -k[1, 1] * ty / z)
    return position, torch.stack([torch.stack(row, 1) for row in rows], 1)


def _compensation(before: Tensor, after: Tensor, view: View) -> Tensor:
    """Share of the opacity that is left after blur; 0, without a gradient, where nothing is."""
    kind = view.preset.compensation
    if kind == "none":
        return torch.ones_like(after)
    if kind == "mip":
        kept = (before > FLOOR) & (after > FLOOR)
        share = before / (after + FLOOR) + FLOOR
    else:
        kept = before > 0
        share = before / after
    return torch.where(kept, torch.where(kept, share, 1).sqrt(), 0)
