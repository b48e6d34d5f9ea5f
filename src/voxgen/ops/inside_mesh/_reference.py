"""The definition: solid angles of all triangles, cell by cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.voxelize._prepare import Scene

CHUNK = 1 << 20
"""Pairs of a cell and a triangle looked at in one piece."""


def winding(scene: Scene, grid: VoxelGrid, numbers: bool) -> Tensor:
    """See `voxgen.ops.inside_mesh`: the numbers, or whether they exceed one half."""
    corners = scene.cell_corners()
    parts = (grid.cells.double() + 0.5).split(max(1, CHUNK // len(corners)))
    found = torch.cat([solid_angles(corners - part[:, None, None]).sum(1) / (4 * math.pi) for part in parts])
    return found if numbers else found > 0.5


def solid_angles(corners: Tensor) -> Tensor:
    """Signed solid angle of triangles (..., 3, 3) seen from the origin (A. van Oosterom and J. Strackee, 1983)."""
    a, b, c = corners.unbind(-2)
    na, nb, nc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    determinant = (a * torch.linalg.cross(b, c)).sum(-1)
    divisor = na * nb * nc + (a * b).sum(-1) * nc + (a * c).sum(-1) * nb + (b * c).sum(-1) * na
    return 2 * torch.atan2(determinant, divisor)
