"""Direct3D-S2's networks in the released configurations, and a small flow of our own. Fields have the published names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import ShapeError
from voxgen.layers import set_torso_dtype
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import TORSO_DTYPES, torso_name
from voxgen.models.structure import StructureDecoder, StructureEncoder, StructureFlow, StructureVAE

from .refiner import SDFRefiner
from .sign_refiner import SignRefiner
from .ss_dit import SSDiT
from .unet import UNet3D


def _dtype(where: str, use_fp16: bool | None, torso_dtype: torch.dtype | str | None) -> torch.dtype:
    return TORSO_DTYPES[torso_name(where, torso_dtype, use_fp16, "float16")]


def _dense_vae(
    embed_dim: int,
    in_channels: int,
    out_channels: int,
    model_channels_encoder: Sequence[int],
    num_res_blocks_encoder: int,
    num_res_blocks_middle_encoder: int,
    model_channels_decoder: Sequence[int],
    num_res_blocks_decoder: int,
    num_res_blocks_middle_decoder: int,
    latents_scale: float,
    latents_shift: float,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
) -> StructureVAE:
    dtype = _dtype("StructureVAE", use_fp16, torso_dtype)
    shared = {"latent_channels": embed_dim, "torso_dtype": dtype, "checkpoint": use_checkpoint}
    encoder = StructureEncoder(
        in_channels,
        channels=model_channels_encoder,
        num_res_blocks=num_res_blocks_encoder,
        num_res_blocks_middle=num_res_blocks_middle_encoder,
        **shared,
    )
    decoder = StructureDecoder(
        out_channels,
        channels=model_channels_decoder,
        num_res_blocks=num_res_blocks_decoder,
        num_res_blocks_middle=num_res_blocks_middle_decoder,
        **shared,
    )
    set_torso_dtype(decoder, dtype)  # its first and last convolution too, unlike the encoder's
    return StructureVAE(encoder, decoder, latents_scale=latents_scale, latents_shift=latents_shift)


def _dense_dit(
    num_heads: int | None,
    num_head_channels: int,
    latent_shape: Sequence[int] | None,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
    **fields: Any,
) -> StructureFlow:
    where = "StructureFlow"
    expected = [fields["in_channels"], *[fields["resolution"]] * 3]
    if latent_shape is not None and list(latent_shape) != expected:
        raise ShapeError(f"{where}: latent_shape must be {expected}, by in_channels and resolution; got {list(latent_shape)}.")
    by_width = fields["model_channels"] // require_int(where, "num_head_channels", num_head_channels, 1)
    dtype = _dtype(where, use_fp16, torso_dtype)
    flow = StructureFlow(num_heads=by_width if num_heads is None else num_heads, checkpoint=use_checkpoint, **fields)
    return set_torso_dtype(flow, dtype)  # every Linear layer, not those of the blocks alone


def _sparse_dit(
    pe_mode: str,
    qk_rms_norm: bool,
    use_shift: bool,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
    **fields: Any,
) -> SSDiT:
    where = "SSDiT"
    require_choice(where, "pe_mode", pe_mode, ("ape",))
    del qk_rms_norm  # as published, where spatial sparse attention has no such norm whatever it says
    return SSDiT(
        shifted="odd" if use_shift else "all", torso_dtype=_dtype(where, use_fp16, torso_dtype), checkpoint=use_checkpoint, **fields
    )


def _unet(channels: int, use_checkpoint: bool, fields: dict[str, Any]) -> UNet3D:
    return UNet3D(channels, checkpoint=use_checkpoint, **{name: fields.pop(name) for name in _UNET})


def _refiner(
    input_channels_of_the_unet: int, use_fp16: bool | None, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, **fields: Any
) -> SDFRefiner:
    unet = _unet(input_channels_of_the_unet, use_checkpoint, fields)
    return set_torso_dtype(SDFRefiner(unet, **fields), _dtype("SDFRefiner", use_fp16, torso_dtype))


def _sign_refiner(
    input_channels_of_the_unet: int, use_fp16: bool | None, torso_dtype: torch.dtype | str | None, use_checkpoint: bool, **fields: Any
) -> SignRefiner:
    unet = _unet(input_channels_of_the_unet, use_checkpoint, fields)
    return set_torso_dtype(SignRefiner(unet, **fields), _dtype("SignRefiner", use_fp16, torso_dtype))


_PRECISION = {"use_fp16": None, "torso_dtype": None, "use_checkpoint": False}
_UNET = {"layers_per_block": 2, "layers_mid_block": 2, "norm_num_groups": 4, "block_out_channels": (8, 32, 128, 512)}
_FIELD = {"in_channels": 1, "out_channels": 1}

dense_vae = Recipe(
    _dense_vae,
    {
        "embed_dim": 8,
        **_FIELD,
        "model_channels_encoder": (32, 128, 512),
        "num_res_blocks_encoder": 2,
        "num_res_blocks_middle_encoder": 2,
        "model_channels_decoder": (512, 128, 64),
        "num_res_blocks_decoder": 4,
        "num_res_blocks_middle_decoder": 4,
        "latents_scale": 1.0,
        "latents_shift": 0.0,
        **_PRECISION,
    },
)
dense_dit = Recipe(
    _dense_dit,
    {
        "resolution": 16,
        "in_channels": 8,
        "model_channels": 1024,
        "cond_channels": 1024,
        "out_channels": 8,
        "num_blocks": 24,
        "num_heads": None,
        "num_head_channels": 64,
        "mlp_ratio": 4.0,
        "patch_size": 1,
        "pe_mode": "ape",
        "share_mod": False,
        "qk_rms_norm": True,
        "qk_rms_norm_cross": False,
        "latent_shape": None,
        **_PRECISION,
    },
)
_SPARSE_DIT = {
    "resolution": 64,
    "in_channels": 16,
    "model_channels": 1024,
    "cond_channels": 1024,
    "out_channels": 16,
    "num_blocks": 24,
    "num_heads": 32,
    "num_kv_heads": 2,
    "mlp_ratio": 4.0,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": False,
    "window_size": 8,
    "use_shift": True,
    "compression_block_size": 8,
    "selection_block_size": 8,
    "topk": 8,
    "compression_version": "v1",
    "own_block": False,
    "sparse_conditions": False,
    "factor": 1.0,
    **_PRECISION,
}
_V10 = {"compression_block_size": 4, "compression_version": "v2", "sparse_conditions": True}
_1024 = {"resolution": 128, "factor": 0.5}

dit_512_v11 = Recipe(_sparse_dit, _SPARSE_DIT)
dit_1024_v11 = Recipe(_sparse_dit, {**_SPARSE_DIT, **_1024})
dit_512_v10 = Recipe(_sparse_dit, {**_SPARSE_DIT, **_V10, "topk": 32})
dit_1024_v10 = Recipe(_sparse_dit, {**_SPARSE_DIT, **_V10, **_1024})
small_dit = Recipe(
    _sparse_dit,
    {
        **_SPARSE_DIT,
        "resolution": 8,
        "in_channels": 8,
        "out_channels": 8,
        "model_channels": 192,
        "cond_channels": 128,
        "num_blocks": 4,
        "num_heads": 6,
        "compression_block_size": 4,
        "selection_block_size": 4,
        "window_size": 4,
        "torso_dtype": "float32",
    },
)
refiner = Recipe(
    _refiner,
    {**_FIELD, "feature_channels": 32, "input_channels_of_the_unet": 16, **_UNET, "patch_size": 192, "overlap": 32, **_PRECISION},
)
sign_refiner = Recipe(_sign_refiner, {**_FIELD, "input_channels_of_the_unet": 8, **_UNET, "patch_size": 256, "stride": None, **_PRECISION})
