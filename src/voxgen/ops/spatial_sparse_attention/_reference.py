"""The definition: the three branches, each by its own definition, and their gated sum."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.block_attention import compression_attention, selection_attention, window_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.blocks import SSAPlan


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_c: Tensor,
    v_c: Tensor,
    gate: Tensor,
    plan: SSAPlan,
    top_k: int,
    shift: int,
    own_block: bool,
    key_mask: Tensor | None,
    scale: float,
) -> Tensor:
    """See `spatial_sparse_attention`."""
    with torch.autocast(q.device.type, enabled=False):
        compressed, lse = compression_attention(q, k_c, v_c, plan, scale=scale, backend="reference")
        chosen = block_topk(q, k_c, lse, plan, top_k, own_block=own_block, scale=scale, backend="reference")
        selected = selection_attention(q, k, v, chosen, plan.selection, key_mask=key_mask, scale=scale, backend="reference").out
        windowed = window_attention(q, k, v, plan.windows(shift), key_mask=key_mask, scale=scale, backend="reference").out
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        branches = torch.stack((compressed, selected, windowed), 3).to(wide)
        return (branches * gate.to(wide)[:, None, None]).sum(3).to(q.dtype)
