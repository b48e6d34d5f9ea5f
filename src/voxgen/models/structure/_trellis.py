"""TRELLIS' networks of the structure stage in the released configurations. Fields have the published names."""

from __future__ import annotations

from typing import Any

import torch

from voxgen.core.checks import require_choice
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import TORSO_DTYPES, torso_name

from .decoder import StructureDecoder
from .encoder import StructureEncoder
from .flow import StructureFlow


def _options(where: str, use_fp16: bool | None, torso_dtype: torch.dtype | str | None, use_checkpoint: bool) -> dict[str, Any]:
    return {"torso_dtype": TORSO_DTYPES[torso_name(where, torso_dtype, use_fp16, "float16")], "checkpoint": use_checkpoint}


def _encoder(norm_type: str, use_fp16: bool | None, torso_dtype: Any, use_checkpoint: bool, **fields: Any) -> StructureEncoder:
    where = "StructureEncoder"
    require_choice(where, "norm_type", norm_type, ("layer",))
    return StructureEncoder(**fields, **_options(where, use_fp16, torso_dtype, use_checkpoint))


def _decoder(norm_type: str, use_fp16: bool | None, torso_dtype: Any, use_checkpoint: bool, **fields: Any) -> StructureDecoder:
    where = "StructureDecoder"
    require_choice(where, "norm_type", norm_type, ("layer",))
    return StructureDecoder(**fields, **_options(where, use_fp16, torso_dtype, use_checkpoint))


def _flow(use_fp16: bool | None, torso_dtype: Any, use_checkpoint: bool, **fields: Any) -> StructureFlow:
    return StructureFlow(**fields, **_options("StructureFlow", use_fp16, torso_dtype, use_checkpoint))


_PRECISION = {"use_fp16": None, "torso_dtype": None, "use_checkpoint": False}
_VAE = {"latent_channels": 8, "num_res_blocks": 2, "num_res_blocks_middle": 2, "norm_type": "layer", **_PRECISION}

encoder = Recipe(_encoder, {"in_channels": 1, "channels": (32, 128, 512), **_VAE})
decoder = Recipe(_decoder, {"out_channels": 1, "channels": (512, 128, 32), **_VAE})
flow = Recipe(
    _flow,
    {
        "resolution": 16,
        "in_channels": 8,
        "out_channels": 8,
        "model_channels": 1024,
        "cond_channels": 1024,
        "num_blocks": 24,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "patch_size": 1,
        "pe_mode": "ape",
        "qk_rms_norm": True,
        "qk_rms_norm_cross": False,
        **_PRECISION,
    },
)
