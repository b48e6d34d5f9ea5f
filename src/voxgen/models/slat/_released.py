"""TRELLIS' networks on structured latents in the released configurations. Fields have the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.layers import GaussianHead
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import torso_name
from voxgen.representations import GaussianActivation

from .config import SLatConfig
from .decoders import FLEX_CHANNELS, MESH_CHANNELS, SLatGaussianDecoder, SLatMeshDecoder
from .encoder import SLatEncoder


def _config(
    where: str,
    in_channels: int,
    out_channels: int,
    num_heads: int | None,
    num_head_channels: int,
    pe_mode: str,
    qk_rms_norm: bool,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    **fields: Any,
) -> SLatConfig:
    require_choice(where, "pe_mode", pe_mode, ("ape",))
    if qk_rms_norm is not False:
        raise RangeError(f"{where}: qk_rms_norm must be False, as in every released file; got {qk_rms_norm}.")
    by_width = fields["model_channels"] // require_int(where, "num_head_channels", num_head_channels, 1)
    return SLatConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        num_heads=by_width if num_heads is None else num_heads,
        torso_dtype=torso_name(where, torso_dtype, use_fp16, "float16"),
        **fields,
    )


def _encoder(in_channels: int, latent_channels: int, **fields: Any) -> SLatEncoder:
    require_int("SLatEncoder", "latent_channels", latent_channels, 1)
    return SLatEncoder(_config("SLatEncoder", in_channels, 2 * latent_channels, **fields))


def _gaussian_decoder(latent_channels: int, representation_config: Mapping[str, Any], **fields: Any) -> SLatGaussianDecoder:
    where = "SLatGaussianDecoder"
    head = _representation(where, representation_config, GAUSSIANS)
    activation = GaussianActivation.from_trellis(head)
    return SLatGaussianDecoder(_config(where, latent_channels, GaussianHead.WIDTH * activation.count, **fields), activation)


def _mesh_decoder(latent_channels: int, representation_config: Mapping[str, Any], **fields: Any) -> SLatMeshDecoder:
    where = "SLatMeshDecoder"
    head = _representation(where, representation_config, {"use_color": True})
    config = _config(where, latent_channels, MESH_CHANNELS if head["use_color"] else FLEX_CHANNELS, **fields)
    return SLatMeshDecoder(config, (config.model_channels // 4, config.model_channels // 8))


def _representation(where: str, given: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """The published entries with those that are given; raise for others."""
    if not isinstance(given, Mapping):
        raise DtypeError(f"{where}: representation_config must be a dict; got {describe(given)}.")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise RangeError(f"{where}: representation_config has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}.")
    return {**known, **given}


GAUSSIANS: Mapping[str, Any] = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 32,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 9e-4,
    "scaling_bias": 4e-3,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
"""How the released decoder's raw channels become Gaussians, in the published words."""

_FIELDS = {
    "resolution": 64,
    "model_channels": 768,
    "latent_channels": 8,
    "num_blocks": 12,
    "num_heads": 12,
    "num_head_channels": 64,
    "mlp_ratio": 4.0,
    "attn_mode": "swin",
    "window_size": 8,
    "pe_mode": "ape",
    "qk_rms_norm": False,
    "use_fp16": None,
    "torso_dtype": None,
    "use_checkpoint": False,
}

encoder = Recipe(_encoder, {**_FIELDS, "in_channels": 1024})
gaussian_decoder = Recipe(_gaussian_decoder, {**_FIELDS, "representation_config": GAUSSIANS})
mesh_decoder = Recipe(_mesh_decoder, {**_FIELDS, "representation_config": {"use_color": True}})
