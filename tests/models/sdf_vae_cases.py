"""Small sparse SDF autoencoders and SDFs for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from voxgen.core import VoxelGrid
from voxgen.models import SparseSDFVAE, build
from voxgen.representations import SparseSDF

SMALL = {
    "embed_dim": 4,
    "model_channels_encoder": 32,
    "num_blocks_encoder": 2,
    "num_heads_encoder": 2,
    "model_channels_decoder": 32,
    "num_blocks_decoder": 2,
    "num_heads_decoder": 2,
    "num_groups": 2,
    "window_size": 4,
    "resolution": 4,
}


def vae(seed: int = 0, **fields: Any) -> SparseSDFVAE:
    """A small autoencoder with drawn last layers and larger convolutions, so that something comes out that differs from cell to cell."""
    torch.manual_seed(seed)
    module = build("voxgen/sdf-vae-small", **{**SMALL, **fields})
    assert isinstance(module, SparseSDFVAE)
    for layer in (module.encoder.out_layer.linear, module.decoder.out_layer):
        nn.init.normal_(layer.weight, std=0.3)
    for name, weight in module.named_parameters():
        if ".conv" in name and name.endswith("weight"):
            weight.data.mul_(4)
    return module


def balls(radii: tuple[float, ...] = (9.0, 0.0, 6.5), resolution: int = 32, band: float = 2.0) -> SparseSDF:
    """A ball a sample, around a point that is no centre of a cell; radius 0 is an empty sample."""
    axis = torch.arange(resolution)
    cells = torch.cartesian_prod(axis, axis, axis)
    coords, values = [], []
    for i, radius in enumerate(radii):
        distance = (cells + 0.5 - torch.tensor([14.3, 16.1, 15.2]) * resolution / 32).norm(dim=1) - radius
        near = (distance.abs() < band) & (radius > 0)
        coords.append(torch.nn.functional.pad(cells[near], (1, 0), value=i))
        values.append(distance[near])
    grid = VoxelGrid.from_sorted(torch.cat(coords).int(), resolution=resolution, batch_size=len(radii))
    return SparseSDF(grid, torch.cat(values)[:, None], band)
