"""Where points fall in feature maps, and how much each texel and view counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import Camera


class Taps(NamedTuple):
    """Four texels for each view and point.

    rows: (v, p, 4) int64 rows of maps laid out (v · h · w, c).   share: (v, p, 4) what each counts: bilinear, times the view's weight;
    0 where there is no texel, or the view does not see the point.
    """

    rows: Tensor
    share: Tensor


def taps(points: Tensor, cameras: Camera, size: tuple[int, int], depth: Tensor | None, tolerance: float, normals: Tensor | None) -> Taps:
    """The texels around each point in each map of (h, w) texels."""
    h, w = size
    local = cameras.to_camera(points)
    z = local[..., 2]
    uv = in_picture(local, cameras)
    counts = torch.ones_like(z) if cameras.orthographic else (z > 0).to(z.dtype)
    if depth is not None:
        counts = counts * _unhidden(uv.detach(), z.detach(), depth, tolerance).to(z.dtype)
    if normals is not None:
        counts = counts * _facing(points, cameras, normals.to(z.dtype))
    x, y = uv[..., 0] * w - 0.5, uv[..., 1] * h - 0.5
    column, row = _floor(x, w), _floor(y, h)
    fx, fy = x - column, y - row
    index, share = [], []
    for dy, sy in ((0, 1 - fy), (1, fy)):
        for dx, sx in ((0, 1 - fx), (1, fx)):
            i, j = row + dy, column + dx
            there = (i >= 0) & (i < h) & (j >= 0) & (j < w)
            index.append(i.clamp(0, h - 1) * w + j.clamp(0, w - 1))
            share.append(torch.where(there & (counts > 0), sx * sy * counts, 0))
    first = torch.arange(len(cameras), device=points.device)[:, None, None] * (h * w)
    return Taps(torch.stack(index, -1) + first, torch.stack(share, -1))


def in_picture(local: Tensor, cameras: Camera) -> Tensor:
    """Camera coordinates (v, p, 3) → places in the picture, (0, 0) its upper left corner and (1, 1) its lower right one."""
    k = cameras.intrinsics.to(local)
    plane = local[..., :2]
    if not cameras.orthographic:
        z = local[..., 2:]
        plane = plane / torch.where(z == 0, torch.finfo(z.dtype).tiny, z)
    skew = torch.stack((plane[..., 1] * k[:, None, 0, 1], torch.zeros_like(plane[..., 0])), -1)
    pixels = plane * torch.stack((k[:, 0, 0], k[:, 1, 1]), 1)[:, None] + skew + k[:, None, :2, 2]
    return pixels / torch.tensor([cameras.width, cameras.height], dtype=local.dtype, device=local.device)


def _floor(x: Tensor, texels: int) -> Tensor:
    """The texel before a place; far outside it does not matter which, so that the largest floats stay in range."""
    return x.detach().nan_to_num(-2.0).clamp(-2, texels + 1).floor().long()


def _unhidden(uv: Tensor, z: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """Whether nothing lies in front of each point, by the nearest texel of the depth maps."""
    height, width = depth.shape[1:]
    if height * width == 0:
        return torch.ones_like(z, dtype=torch.bool)
    column = (uv[..., 0].nan_to_num(0).clamp(0, 1) * width).long().clamp_max(width - 1)
    row = (uv[..., 1].nan_to_num(0).clamp(0, 1) * height).long().clamp_max(height - 1)
    nearest = depth.flatten(1).gather(1, row * width + column).to(z.dtype)
    return (nearest <= 0) | (z <= nearest + tolerance)


def _facing(points: Tensor, cameras: Camera, normals: Tensor) -> Tensor:
    """Cosine between each normal and the direction to each camera, 0 from behind: (v, p)."""
    if cameras.orthographic:
        return (-cameras.forward.to(points)[:, None] * normals).sum(-1).clamp_min(0)
    toward = torch.nn.functional.normalize(cameras.positions.to(points)[:, None] - points, dim=-1)
    return (toward * normals).sum(-1).clamp_min(0)
