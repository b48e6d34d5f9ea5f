"""The flows of TRELLIS.2 in the released configurations, and a small one of our own. Fields have the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from voxgen.core.errors import RangeError
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import TORSO_DTYPES, torso_name
from voxgen.models.structure import StructureFlow

from .flow import LatentFlow


def _flow(dtype: str, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, rope_freq: Any, **fields: Any) -> LatentFlow:
    return LatentFlow(torso_dtype=_torso("LatentFlow", dtype, torso_dtype), checkpoint=use_checkpoint, rope_freq=tuple(rope_freq), **fields)


def _structure_flow(
    dtype: str, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, rope_freq: Any, **fields: Any
) -> StructureFlow:
    if tuple(rope_freq) != (1.0, 10_000.0):
        raise RangeError(f"StructureFlow: rope_freq must be (1, 10000), which the original computes whatever it says; got {rope_freq}.")
    return StructureFlow(torso_dtype=_torso("StructureFlow", dtype, torso_dtype), checkpoint=use_checkpoint, **fields)


def _torso(where: str, dtype: str, torso_dtype: torch.dtype | str | None) -> torch.dtype:
    """`dtype` is the released field; `torso_dtype`, voxgen's word for it in all networks, comes first."""
    named = torso_name(where, dtype if torso_dtype is None else torso_dtype, None)
    if named not in TORSO_DTYPES:
        raise RangeError(f"{where}: dtype must be one of {', '.join(TORSO_DTYPES)}; got {named!r}.")
    return TORSO_DTYPES[named]


_RELEASED: Mapping[str, Any] = {
    "resolution": 32,
    "in_channels": 32,
    "model_channels": 1536,
    "cond_channels": 1024,
    "out_channels": 32,
    "num_blocks": 30,
    "num_heads": 12,
    "mlp_ratio": 5.3334,
    "pe_mode": "rope",
    "rope_freq": (1.0, 10_000.0),
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
    "dtype": "bfloat16",
    "torso_dtype": None,
    "use_checkpoint": False,
}

_LATENT: Mapping[str, Any] = {**_RELEASED, "attention": "full", "attention_options": None}

structure_flow = Recipe(_structure_flow, {**_RELEASED, "resolution": 16, "in_channels": 8, "out_channels": 8, "patch_size": 1})
shape_flow_512 = Recipe(_flow, _LATENT)
shape_flow_1024 = Recipe(_flow, {**_LATENT, "resolution": 64})
material_flow_512 = Recipe(_flow, {**_LATENT, "in_channels": 64})
material_flow_1024 = Recipe(_flow, {**_LATENT, "in_channels": 64, "resolution": 64})
small = Recipe(
    _flow,
    {
        **_LATENT,
        "resolution": 8,
        "in_channels": 16,
        "out_channels": 16,
        "model_channels": 192,
        "cond_channels": 64,
        "num_blocks": 4,
        "num_heads": 3,
        "dtype": "float32",
    },
)
