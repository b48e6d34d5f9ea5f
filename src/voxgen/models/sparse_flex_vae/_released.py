"""The VAE in TripoSF's released configuration, and a small one of our own. Fields have the published names where there are any."""

from __future__ import annotations

import torch

from voxgen.core.checks import require_int
from voxgen.models._recipe import Recipe
from voxgen.models.sc_vae.config import torso_name

from .config import Compat, FlexDecoderConfig, FlexEncoderConfig, Norm, PointEncoderConfig
from .decoder import SparseFlexDecoder
from .encoder import SparseFlexEncoder
from .vae import SparseFlexVAE


def _vae(
    point_channels: int,
    hidden_dim: int,
    n_blocks: int,
    use_normals: bool,
    model_channels: int,
    latent_channels: int,
    num_blocks: int,
    num_heads: int | None,
    num_head_channels: int,
    mlp_ratio: float,
    window_size: int,
    out_channels: int,
    norm: Norm,
    num_groups: int,
    pruning: bool,
    use_fp16: bool | None,
    torso_dtype: torch.dtype | str | None,
    use_checkpoint: bool,
    compat: Compat | None,
) -> SparseFlexVAE:
    where = "SparseFlexVAE"
    width = require_int(where, "num_head_channels", num_head_channels, 1)
    shared = {
        "model_channels": model_channels,
        "latent_channels": latent_channels,
        "num_blocks": num_blocks,
        "num_heads": model_channels // width if num_heads is None else num_heads,
        "window": window_size,
        "mlp_ratio": mlp_ratio,
        "torso_dtype": torso_name(where, torso_dtype, use_fp16, "float32"),
        "use_checkpoint": use_checkpoint,
    }
    points = PointEncoderConfig(point_channels, hidden_dim, n_blocks, use_normals, compat, use_checkpoint)
    encoder = FlexEncoderConfig(in_channels=point_channels, **shared)
    decoder = FlexDecoderConfig(out_channels=out_channels, norm=norm, num_groups=num_groups, prune=pruning, **shared)
    return SparseFlexVAE(points.build(), SparseFlexEncoder(encoder), SparseFlexDecoder(decoder))


_FIELDS = {
    "point_channels": 1024,
    "hidden_dim": 256,
    "n_blocks": 5,
    "use_normals": True,
    "model_channels": 768,
    "latent_channels": 8,
    "num_blocks": 12,
    "num_heads": 12,
    "num_head_channels": 64,
    "mlp_ratio": 4.0,
    "window_size": 8,
    "out_channels": 53,
    "norm": "group",
    "num_groups": 32,
    "pruning": False,
    "use_fp16": None,
    "torso_dtype": None,
    "use_checkpoint": False,
    "compat": "triposf",
}
_SMALL = {
    "point_channels": 64,
    "hidden_dim": 32,
    "n_blocks": 3,
    "model_channels": 128,
    "num_blocks": 2,
    "num_heads": 4,
    "norm": "per_voxel",
    "num_groups": 8,
    "pruning": True,
    "compat": None,
}

vae = Recipe(_vae, _FIELDS)
small_vae = Recipe(_vae, {**_FIELDS, **_SMALL})
