"""Vertices of a mesh as cameras see them."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core import Camera


def project(camera: Camera, vertices: Tensor) -> Tensor:
    """World (v, 3) → clip space (b, v, 4) float64."""
    points = torch.cat((vertices.double(), torch.ones(len(vertices), 1, dtype=torch.float64)), 1)
    return points @ camera.clip_matrices().double().transpose(1, 2)
