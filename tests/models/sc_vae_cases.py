"""Small autoencoders and O-Voxels for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.models import SCVAE, DecoderConfig, EncoderConfig, SCDecoder, SCEncoder, build
from voxgen.representations import OVoxel
from voxgen.testing.grids import random_grid

SMALL: dict[str, Any] = {"model_channels": (16, 32, 64), "num_blocks": (0, 1, 1), "latent_channels": 4, "use_fp16": False}


def wake(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Random weights in everything, zeroed convolutions included, so that no path of a test is silent."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[..., 0].numel() if parameter.ndim == 3 else parameter[0].numel() if parameter.ndim == 2 else 1
            centre = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(centre + noise * (fan_in**-0.5 if parameter.ndim > 1 else scale))
    return module


def encoder(**fields: Any) -> SCEncoder:
    config = {"model_channels": (16, 32), "num_blocks": (1, 1), "latent_channels": 4, **fields}
    return wake(SCEncoder(EncoderConfig(**config)))  # pyright: ignore[reportReturnType]


def decoder(**fields: Any) -> SCDecoder:
    config = {"model_channels": (32, 16), "num_blocks": (1, 1), "latent_channels": 4, **fields}
    return wake(SCDecoder(DecoderConfig(**config)))  # pyright: ignore[reportReturnType]


def vae(kind: str, **fields: Any) -> SCVAE[Any]:
    return wake(build(f"trellis2/{kind}-vae", **{**SMALL, "normalization": None, **fields}))  # pyright: ignore[reportReturnType]


def ovoxel(counts: tuple[int, ...] = (90, 0, 60), resolution: int = 16) -> OVoxel:
    """Random cells with random fields and materials."""
    grid = random_grid(counts, resolution)
    n = len(grid)
    values = {"base_color": torch.rand(n, 3), "metallic": torch.rand(n, 1), "roughness": torch.rand(n, 1), "alpha": torch.rand(n, 1)}
    return OVoxel(grid, torch.rand(n, 3), torch.rand(n, 3) < 0.4, materials=values)


def latent(grid: VoxelGrid, channels: int = 4) -> SparseTensor:
    return SparseTensor(grid, torch.randn(len(grid), channels))
