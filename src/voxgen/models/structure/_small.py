"""Small networks of the structure stage of our own, for training and tests without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import TORSO_DTYPES, torso_name

from .decoder import StructureDecoder
from .encoder import StructureEncoder
from .flow import StructureFlow
from .vae import StructureVAE


def _vae(
    embed_dim: int,
    model_channels: Sequence[int],
    num_res_blocks: int,
    num_res_blocks_middle: int,
    latents_scale: float,
    latents_shift: float,
    torso_dtype: torch.dtype | str,
    use_checkpoint: bool,
) -> StructureVAE:
    shared: dict[str, Any] = {
        "latent_channels": embed_dim,
        "num_res_blocks": num_res_blocks,
        "num_res_blocks_middle": num_res_blocks_middle,
        "torso_dtype": TORSO_DTYPES[torso_name("StructureVAE", torso_dtype, None)],
        "checkpoint": use_checkpoint,
    }
    widths = list(model_channels)
    encoder = StructureEncoder(1, channels=widths, **shared)
    decoder = StructureDecoder(1, channels=widths[::-1], **shared)
    return StructureVAE(encoder, decoder, latents_scale=latents_scale, latents_shift=latents_shift)


def _flow(torso_dtype: torch.dtype | str, use_checkpoint: bool, **fields: Any) -> StructureFlow:
    dtype = TORSO_DTYPES[torso_name("StructureFlow", torso_dtype, None)]
    return StructureFlow(torso_dtype=dtype, checkpoint=use_checkpoint, **fields)


vae = Recipe(
    _vae,
    {
        "embed_dim": 8,
        "model_channels": (16, 32, 64),
        "num_res_blocks": 1,
        "num_res_blocks_middle": 1,
        "latents_scale": 1.0,
        "latents_shift": 0.0,
        "torso_dtype": "float32",
        "use_checkpoint": False,
    },
)
flow = Recipe(
    _flow,
    {
        "resolution": 8,
        "in_channels": 8,
        "out_channels": 8,
        "model_channels": 128,
        "cond_channels": 128,
        "num_blocks": 6,
        "num_heads": 4,
        "mlp_ratio": 4.0,
        "patch_size": 1,
        "pe_mode": "rope",
        "share_mod": True,
        "qk_rms_norm": True,
        "qk_rms_norm_cross": True,
        "initialization": "scaled",
        "torso_dtype": "float32",
        "use_checkpoint": False,
    },
)
