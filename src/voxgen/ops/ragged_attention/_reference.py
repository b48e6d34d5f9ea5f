"""The definition: a softmax over the keys of each sample."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, scale: float) -> Tensor:
    """See `ragged_attention`."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    groups = q.shape[1] // k.shape[1]
    keys, values = (t.to(wide).repeat_interleave(groups, 1) for t in (k, v))
    # the first part has no rows: it keeps every operand a part of the result
    parts = [nothing_seen(q[:0], k[:0], v[:0]).to(wide)]
    for s in range(len(offsets) - 1):
        own, seen = slice(offsets[s], offsets[s + 1]), slice(key_offsets[s], key_offsets[s + 1])
        weights = (torch.einsum("nhd,khd->hnk", q[own].to(wide), keys[seen]) * scale).softmax(2)
        parts.append(torch.einsum("hnk,khd->nhd", weights, values[seen]))
    return torch.cat(parts).to(q.dtype)


def nothing_seen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What queries get that see no key: zeros of the shape of q, with a gradient of 0 for every operand."""
    return q.masked_fill(torch.ones((), dtype=torch.bool, device=q.device), 0) + (k[:0].sum() + v[:0].sum())
