"""The definition: every point against every triangle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.ops.inside_mesh._reference import solid_angles

from ._closest import closest_points

CHUNK = 1 << 20
"""Pairs of a point and a triangle looked at in one piece."""


def nearest_face(points: Tensor, vertices: Tensor, faces: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """The nearest face to each point, (p,) int64, and with `signed` whether the winding number there exceeds one half (p,)."""
    corners = vertices[faces]
    found, inside = [], []
    for part in points.split(max(1, CHUNK // len(faces))):
        found.append((part[:, None] - closest_points(part[:, None], corners)).norm(dim=2).argmin(1))
        if signed:
            inside.append(solid_angles(corners - part[:, None, None]).sum(1) / (4 * math.pi) > 0.5)
    return torch.cat(found), torch.cat(inside) if signed else torch.zeros(len(points), dtype=torch.bool, device=points.device)
