"""The transformer at the level of the latent, which encoder and decoder share in kind."""

from __future__ import annotations

import math

import torch
from torch import nn

from voxgen.attention import TransformerBlock, WindowAttention, absolute_embedding
from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError

from .config import LatentLevel


def window_blocks(config: LatentLevel) -> nn.ModuleList:
    """Transformer blocks; every second one has its windows shifted by half a window."""
    c = config
    return nn.ModuleList(
        TransformerBlock(
            c.model_channels,
            WindowAttention(c.model_channels, c.num_heads, c.window, shift=c.window // 2 * (i % 2)),
            mlp_ratio=c.mlp_ratio,
            checkpoint=c.use_checkpoint,
        )
        for i in range(c.num_blocks)
    )


def add_positions(where: str, x: SparseTensor, factor: float) -> SparseTensor:
    """x plus the code of its cells' indices times `factor`; summed in float32 and rounded once."""
    if not (math.isfinite(factor) and factor > 0):
        raise RangeError(f"{where}: factor must be positive and finite; got {factor}.")
    wide = torch.promote_types(x.dtype, torch.float32)
    code = absolute_embedding(x.grid.cells.to(wide) * factor, x.channels)
    return x.with_feats((x.feats.to(wide) + code).to(x.dtype))
