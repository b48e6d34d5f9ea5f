"""A small texture autoencoder of our own, for examples and tests on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import torso_name
from voxgen.ops.surface_cells import CHANNELS

from .config import TextureVAEConfig
from .vae import TextureVAE


def _vae(widths: Sequence[int], use_fp16: bool | None, torso_dtype: torch.dtype | str | None, **fields: Any) -> TextureVAE:
    return TextureVAE(TextureVAEConfig(widths=tuple(widths), torso_dtype=torso_name("TextureVAE", torso_dtype, use_fp16), **fields))


small = Recipe(
    _vae,
    {
        "resolution": 32,
        "feature_channels": 64,
        "geometry_channels": CHANNELS,
        "latent_channels": 8,
        "model_channels": 96,
        "num_blocks": 2,
        "num_heads": 4,
        "mlp_ratio": 4.0,
        "window_size": 8,
        "mask_blocks": 1,
        "widths": (48, 32),
        "num_gaussians": 2,
        "use_fp16": None,
        "torso_dtype": None,
        "use_checkpoint": False,
    },
)
