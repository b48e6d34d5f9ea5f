"""The definition: every cell of the grid against every triangle."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.mesh_distance import closest_points
from voxgen.ops.voxelize._prepare import Scene

TIE = 1e-9
"""Distances that differ by no more, in cells, are equal: the face of lower index is taken."""
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
