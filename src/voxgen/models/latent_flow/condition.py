"""Condition tokens as the blocks of a latent flow take them."""

from __future__ import annotations

import torch

from voxgen.attention import Context, PackedContext, pack_context
from voxgen.attention.cross_attention import require_context
from voxgen.core import SparseTensor
from voxgen.core.checks import require_same_device

__all__ = ["packed_condition"]


def packed_condition(where: str, x: SparseTensor, context: Context, channels: int, dtype: torch.dtype) -> PackedContext:
    """Checked, packed once for all blocks, in their dtype. Raises as `require_context`, and DeviceError."""
    samples = x.grid.batch_size
    require_context(where, context, samples, channels)
    packed = pack_context(context) if samples else PackedContext(x.feats.new_zeros(0, channels), x.grid.offsets)
    require_same_device(where, x=x.feats, context=packed.tokens)
    return PackedContext(packed.tokens.to(dtype), packed.offsets)
