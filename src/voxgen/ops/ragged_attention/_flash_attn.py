"""Full attention by the library flash-attn: one call for the whole batch."""

from __future__ import annotations

from torch import Tensor

from ._reference import nothing_seen


def attend(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, scale: float) -> Tensor:
    """See `ragged_attention`."""
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    if len(q) == 0 or len(k) == 0:
        return nothing_seen(q, k, v)
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=offsets.int(),
        cu_seqlens_k=key_offsets.int(),
        max_seqlen_q=int(offsets.diff().max()),
        max_seqlen_k=int(key_offsets.diff().max()),
        softmax_scale=scale,
        deterministic=True,  # of the gradients
    )
