"""The SS-VAE in Direct3D-S2's released configuration, and a small one of our own. Fields have the published names."""

from __future__ import annotations

import torch

from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.sc_vae.config import torso_name

from .config import Compat, SDFDecoderConfig, SDFEncoderConfig
from .decoder import SparseSDFDecoder
from .encoder import SparseSDFEncoder
from .vae import SparseSDFVAE


def _vae(
    embed_dim: int,
    resolution: int,
    model_channels_encoder: int,
    num_blocks_encoder: int,
    num_heads_encoder: int | None,
    num_head_channels_encoder: int,
    model_channels_decoder: int,
    num_blocks_decoder: int,
    num_heads_decoder: int | None,
    num_head_channels_decoder: int,
    mlp_ratio: float,
    window_size: int,
    num_groups: int,
    out_channels: int,
    chunk_size: int,
    latents_scale: float,
    latents_shift: float,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
    early_pruning: bool,
    compat: Compat | None,
) -> SparseSDFVAE:
    where = "SparseSDFVAE"
    if latents_scale == 0:
        raise RangeError(f"{where}: latents_scale must not be 0, since latents are divided by it.")
    shared = {
        "latent_channels": embed_dim,
        "window": window_size,
        "mlp_ratio": mlp_ratio,
        "torso_dtype": torso_name(where, torso_dtype, use_fp16, "float16"),
        "use_checkpoint": use_checkpoint,
    }
    encoder = SDFEncoderConfig(
        model_channels=model_channels_encoder,
        num_blocks=num_blocks_encoder,
        num_heads=_heads(model_channels_encoder, num_heads_encoder, num_head_channels_encoder),
        num_groups=num_groups,
        compat=compat,
        **shared,
    )
    decoder = SDFDecoderConfig(
        model_channels=model_channels_decoder,
        num_blocks=num_blocks_decoder,
        num_heads=_heads(model_channels_decoder, num_heads_decoder, num_head_channels_decoder),
        out_channels=out_channels,
        early_pruning=early_pruning,
        **shared,
    )
    chunks = require_int(where, "chunk_size", chunk_size, 1)
    side = require_int(where, "resolution", resolution, 1)
    if side % chunks:
        raise RangeError(f"{where}: chunk_size, the number of chunks an axis, must divide the resolution; got {chunks} and {side}.")
    normalization = LatentNormalization((latents_shift,) * embed_dim, (1 / latents_scale,) * embed_dim)
    return SparseSDFVAE(SparseSDFEncoder(encoder), SparseSDFDecoder(decoder), normalization, tile=side // chunks if chunks > 1 else None)


def _heads(channels: int, heads: int | None, head_channels: int) -> int:
    return channels // require_int("SparseSDFVAE", "num_head_channels", head_channels, 1) if heads is None else heads


_FIELDS = {
    "embed_dim": 16,
    "resolution": 64,
    "model_channels_encoder": 512,
    "num_blocks_encoder": 4,
    "num_heads_encoder": 8,
    "num_head_channels_encoder": 64,
    "model_channels_decoder": 512,
    "num_blocks_decoder": 4,
    "num_heads_decoder": 8,
    "num_head_channels_decoder": 64,
    "mlp_ratio": 4.0,
    "window_size": 8,
    "num_groups": 32,
    "out_channels": 1,
    "chunk_size": 1,
    "latents_scale": 1.0,
    "latents_shift": 0.0,
    "use_fp16": None,
    "torso_dtype": None,
    "use_checkpoint": False,
    "early_pruning": False,
    "compat": "direct3d_s2",
}
_SMALL = {
    "embed_dim": 8,
    "model_channels_encoder": 128,
    "num_blocks_encoder": 2,
    "num_heads_encoder": 4,
    "model_channels_decoder": 128,
    "num_blocks_decoder": 2,
    "num_heads_decoder": 4,
    "num_groups": 8,
    "torso_dtype": "float32",
    "compat": None,
}

vae = Recipe(_vae, _FIELDS)
small_vae = Recipe(_vae, {**_FIELDS, **_SMALL})
