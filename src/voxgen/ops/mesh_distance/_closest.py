"""Nearest points on triangles, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-14
"""A triangle whose squared sine at a corner is less has no inside: its sides are nearest."""


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
