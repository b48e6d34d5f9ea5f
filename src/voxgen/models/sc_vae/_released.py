"""The SC-VAE in TRELLIS.2's released configurations, and small ones of our own. Fields have the published names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from voxgen.models._recipe import Recipe

from .config import DecoderConfig, EncoderConfig, torso_name
from .content import DecodedMaterials, DecodedShape, MaterialContent, ShapeContent
from .decoder import SCDecoder
from .encoder import SCEncoder
from .latents import MATERIAL_LATENTS, SHAPE_LATENTS, LatentNormalization
from .vae import SCVAE


def _encoder(use_fp16: bool | None, torso_dtype: torch.dtype | str | None, **fields: Any) -> SCEncoder:
    return SCEncoder(EncoderConfig(torso_dtype=torso_name("EncoderConfig", torso_dtype, use_fp16, "float16"), **fields))


def _decoder(use_fp16: bool | None, torso_dtype: torch.dtype | str | None, **fields: Any) -> SCDecoder:
    return SCDecoder(DecoderConfig(torso_dtype=torso_name("DecoderConfig", torso_dtype, use_fp16, "float16"), **fields))


def _shape_encoder(**fields: Any) -> SCEncoder:
    return _encoder(in_channels=6, **fields)


def _shape_decoder(**fields: Any) -> SCDecoder:
    return _decoder(out_channels=7, **fields)


def _shape_vae(voxel_margin: float, normalization: LatentNormalization | None, **fields: Any) -> SCVAE[DecodedShape]:
    decoder = _shape_decoder(voxel_margin=voxel_margin, **_mirrored(fields))
    return SCVAE(_shape_encoder(**fields), decoder, ShapeContent(voxel_margin), normalization)


def _material_vae(materials: Sequence[str], normalization: LatentNormalization | None, **fields: Any) -> SCVAE[DecodedMaterials]:
    content = MaterialContent(tuple(materials))
    encoder = _encoder(in_channels=content.in_channels, **fields)
    decoder = _decoder(out_channels=content.out_channels, pred_subdiv=False, **_mirrored(fields))
    return SCVAE(encoder, decoder, content, normalization)


def _mirrored(fields: dict[str, Any]) -> dict[str, Any]:
    """Lists run fine → coarse in an encoder and coarse → fine in its decoder."""
    return {name: value[::-1] if isinstance(value, (list, tuple)) else value for name, value in fields.items()}


_LEVELS: dict[str, Any] = {
    "latent_channels": 32,
    "block_type": "SparseConvNeXtBlock3d",
    "block_args": None,
    "use_fp16": None,
    "torso_dtype": None,
}
_DOWN = {"model_channels": (64, 128, 256, 512, 1024), "num_blocks": (0, 4, 8, 16, 4)}
_UP = {"model_channels": (1024, 512, 256, 128, 64), "num_blocks": (4, 16, 8, 4, 0)}
_S2C = {"down_block_type": "SparseResBlockS2C3d"}
_C2S = {"up_block_type": "SparseResBlockC2S3d"}
_MATERIALS = ("base_color", "metallic", "roughness", "alpha")
_SMALL = {"latent_channels": 16, "model_channels": (32, 64, 128), "num_blocks": (0, 1, 1), "torso_dtype": "float32", "normalization": None}

shape_encoder = Recipe(_shape_encoder, {**_LEVELS, **_DOWN, **_S2C})
material_encoder = Recipe(_encoder, {"in_channels": 6, **_LEVELS, **_DOWN, **_S2C})
shape_decoder = Recipe(_shape_decoder, {"resolution": 256, **_LEVELS, **_UP, **_C2S, "voxel_margin": 0.5, "pred_subdiv": True})
material_decoder = Recipe(_decoder, {"out_channels": 6, **_LEVELS, **_UP, **_C2S, "pred_subdiv": False})
shape_vae = Recipe(_shape_vae, {**_LEVELS, **_DOWN, "voxel_margin": 0.5, "normalization": SHAPE_LATENTS})
material_vae = Recipe(_material_vae, {**_LEVELS, **_DOWN, "materials": _MATERIALS, "normalization": MATERIAL_LATENTS})
small_shape_vae = Recipe(_shape_vae, {**_LEVELS, "voxel_margin": 0.5, **_SMALL})
small_material_vae = Recipe(_material_vae, {**_LEVELS, "materials": _MATERIALS, **_SMALL})
