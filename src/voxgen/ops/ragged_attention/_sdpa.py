"""Full attention by torch's own kernels: one call for each run of samples of equal lengths."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from ._reference import nothing_seen
from ._serves import WIDEST


def attend(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, scale: float) -> Tensor:
    """See `ragged_attention`."""
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))  # else torch takes its plain kernel
    lengths = zip(offsets.diff().tolist(), key_offsets.diff().tolist(), strict=True)
    parts = []
    row = key_row = 0
    for (queries, keys), run in groupby(lengths):
        count = len(list(run))
        own = q[row : row + count * queries]
        seen, values = (t[key_row : key_row + count * keys] for t in (k, v))
        row, key_row = row + count * queries, key_row + count * keys
        if queries == 0 or keys == 0:
            parts.append(nothing_seen(own, seen, values))
            continue
        if q.shape[1] != k.shape[1] and not _shares_keys(q):
            seen, values = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (seen, values))
        own, seen, values = (t.unflatten(0, (count, -1)).transpose(1, 2) for t in (own, seen, values))
        out = F.scaled_dot_product_attention(own, seen, values, scale=scale, enable_gqa=own.shape[1] != seen.shape[1])
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if parts else nothing_seen(q, k, v)


def _shares_keys(q: Tensor) -> bool:
    """Whether a kernel of torch that needs O(n) memory shares key heads; on a GPU only the flash one does."""
    if q.device.type == "cuda":
        return q.dtype in (torch.float16, torch.bfloat16) and q.shape[2] <= WIDEST
    return q.device.type == "cpu"
