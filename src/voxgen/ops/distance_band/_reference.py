"""The definition: every cell of the grid against every triangle."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.voxelize._prepare import Scene

TIE = 1e-9
"""Distances that differ by no more, in cells, are equal: the face of lower index is taken."""
FLAT = 1e-14
"""A triangle whose squared sine at a corner is less has no inside: its sides are nearest."""
CHUNK = 1 << 20
"""Pairs of a cell and a triangle looked at in one piece."""


def distance_band(scene: Scene, band: float, progress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `voxgen.ops.distance_band.distance_band`."""
    corners = scene.cell_corners()
    if len(corners) == 0:
        return torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0), torch.zeros(0, dtype=torch.int32)
    axes = [torch.arange(n, dtype=torch.int32, device=corners.device) for n in scene.resolution]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    found = [_nearest(part + 0.5, corners) for part in cells.split(max(1, CHUNK // len(corners)))]
    distance, face = (torch.cat(part) for part in zip(*found, strict=True))
    near = distance <= band
    return cells[near], distance[near].float(), face[near].int()


def _nearest(points: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    distance = (points.double()[:, None] - closest_points(points.double()[:, None], corners)).norm(dim=2)
    least = distance.amin(1)
    return least, (distance <= least[:, None] + TIE).int().argmax(1)


def closest_points(points: Tensor, corners: Tensor) -> Tensor:
    """The nearest points on triangles (..., 3, 3) to points (..., 3), both broadcast: in the triangle where the foot of the
    perpendicular lies in it, else on the nearest of its sides."""
    a, b, c = corners.unbind(-2)
    normal = torch.linalg.cross(b - a, c - a)
    square = (normal * normal).sum(-1, keepdim=True)
    flat = square[..., 0] <= FLAT * ((b - a) ** 2).sum(-1) * ((c - a) ** 2).sum(-1)
    foot = points - normal * (((points - a) * normal).sum(-1, keepdim=True) / square.clamp_min(1e-300))
    inside = ~flat
    best, least = None, None
    for start, end in ((a, b), (b, c), (c, a)):
        side = end - start
        inside = inside & ((torch.linalg.cross(side.expand_as(foot), foot - start) * normal).sum(-1) >= 0)
        length = (side * side).sum(-1, keepdim=True)
        along = (((points - start) * side).sum(-1, keepdim=True) / length.clamp_min(1e-300)).clamp(0, 1)
        nearest = start + along * side
        distance = (points - nearest).norm(dim=-1, keepdim=True)
        best = nearest if best is None or least is None else torch.where(distance < least, nearest, best)
        least = distance if least is None else torch.minimum(distance, least)
    return torch.where(inside[..., None], foot, best if best is not None else foot)
