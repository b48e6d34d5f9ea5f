"""The flows of TRELLIS.2, the latent flow of TRELLIS, and small ones of our own. Fields have the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from voxgen.core.errors import RangeError
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import TORSO_DTYPES, torso_name
from voxgen.models.structure import StructureFlow

from .flow import LatentFlow
from .patched import PatchedLatentFlow


def _flow(dtype: str, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, rope_freq: Any, **fields: Any) -> LatentFlow:
    return LatentFlow(torso_dtype=_torso("LatentFlow", dtype, torso_dtype), checkpoint=use_checkpoint, rope_freq=tuple(rope_freq), **fields)


def _structure_flow(
    dtype: str, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, rope_freq: Any, **fields: Any
) -> StructureFlow:
    if tuple(rope_freq) != (1.0, 10_000.0):
        raise RangeError(f"StructureFlow: rope_freq must be (1, 10000), which the original computes whatever it says; got {rope_freq}.")
    return StructureFlow(torso_dtype=_torso("StructureFlow", dtype, torso_dtype), checkpoint=use_checkpoint, **fields)


def _patched(
    patch_size: int,
    pe_mode: str,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
    share_mod: bool,
    **fields: Any,
) -> PatchedLatentFlow:
    where = "PatchedLatentFlow"
    if patch_size != 2 ** len(fields["io_block_channels"]):
        raise RangeError(
            f"{where}: patch_size must be 2 for each stage of io_block_channels; got {patch_size}, {fields['io_block_channels']}."
        )
    if pe_mode != "ape" or share_mod:
        raise RangeError(f"{where}: the original works with pe_mode='ape' and share_mod=False only; got {pe_mode!r}, {share_mod}.")
    dtype = TORSO_DTYPES[torso_name(where, torso_dtype, use_fp16, "float16")]
    return PatchedLatentFlow(torso_dtype=dtype, checkpoint=use_checkpoint, **fields)


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

_LATENT: Mapping[str, Any] = {**_RELEASED, "attention": "full", "attention_options": None, "patch_size": 1}

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
_PATCHED: Mapping[str, Any] = {
    "resolution": 64,
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "patch_size": 2,
    "num_io_res_blocks": 2,
    "io_block_channels": (128,),
    "use_skip_connection": True,
    "pe_mode": "ape",
    "share_mod": False,
    "qk_rms_norm": True,
    "qk_rms_norm_cross": False,
    "use_fp16": None,
    "torso_dtype": None,
    "use_checkpoint": False,
}
_SMALL_WIDTHS: Mapping[str, Any] = {"in_channels": 8, "out_channels": 8, "model_channels": 128, "cond_channels": 128, "num_heads": 4}
trellis_latent_flow = Recipe(_patched, _PATCHED)
small_focusing_flow = Recipe(_flow, {**_LATENT, **_SMALL_WIDTHS, "resolution": 16, "num_blocks": 6, "mlp_ratio": 4.0, "dtype": "float32"})
small_texture_flow = Recipe(
    _patched, {**_PATCHED, **_SMALL_WIDTHS, "resolution": 32, "num_blocks": 6, "io_block_channels": (32,), "torso_dtype": "float32"}
)
