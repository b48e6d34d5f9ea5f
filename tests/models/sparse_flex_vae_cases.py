"""Small SparseFlex autoencoders and what they read."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn import functional as F

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.models import (
    SparseFlexVAE,
    build,
)
from voxgen.representations import OrientedPoints
from voxgen.testing.grids import random_grid

FIELDS: dict[str, Any] = {
    "point_channels": 8,
    "hidden_dim": 8,
    "n_blocks": 2,
    "model_channels": 32,
    "latent_channels": 4,
    "num_heads": 2,
    "num_groups": 2,
    "window_size": 4,
}


def small(seed: int = 0, trained: bool = True, **fields: Any) -> SparseFlexVAE:
    """A tiny autoencoder; weights of a trained size, none zero, and heads that keep about half of all children."""
    torch.manual_seed(seed)
    vae = cast(SparseFlexVAE, build("voxgen/sparse-flex-vae-small", **{**FIELDS, **fields}))
    if trained:
        with torch.no_grad():
            for name, value in vae.named_parameters():
                if value.ndim == 1:
                    value.add_(0.1 * torch.randn(value.shape))
                elif not value.any():
                    value.copy_(torch.randn(value.shape) * (value.numel() / value.shape[-1 if "conv" in name else 0]) ** -0.5)
    return vae


def cloud_and_grid(counts: tuple[int, ...] = (300, 0, 80), resolution: int = 8) -> tuple[OrientedPoints, VoxelGrid]:
    """Random points in a slab, and their voxels."""
    points = (torch.rand(sum(counts), 3) - 0.5) * torch.tensor([1.0, 1.0, 0.4])
    cloud = OrientedPoints(points, F.normalize(torch.randn(len(points), 3), dim=1), torch.tensor([0, *counts]).cumsum(0))
    return cloud, cloud.voxels(resolution)


def latent_of(*counts: int, resolution: int = 8) -> SparseTensor:
    grid = random_grid(counts or (60, 0, 25), resolution)
    return SparseTensor(grid, torch.randn(len(grid), 4))
