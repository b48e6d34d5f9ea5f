"""The definition: a dense mask of who sees whom, and a softmax over it. Memory grows with queries × keys: for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from ._lists import Lists


def attend(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """See `Attended`."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    groups = q.shape[1] // k.shape[1]
    seen = visible(lists, k).expand(k.shape[1], -1, -1).repeat_interleave(groups, 0)
    keys, values = (t.to(wide).repeat_interleave(groups, 1) for t in (k, v))
    logits = (torch.einsum("nhd,khd->hnk", q.to(wide), keys) * scale).masked_fill(~seen, -torch.inf)
    if k.shape[0] == 0:
        top = logits.new_zeros(logits.shape[:2])
    else:
        top = logits.detach().amax(2)
        top = torch.where(top == -torch.inf, 0, top)
    weights = (logits - top[..., None]).exp()
    total = weights.sum(2)
    out = torch.einsum("hnk,khd->nhd", weights / torch.where(total == 0, 1, total)[..., None], values)
    return out.to(q.dtype), (top + total.detach().log()).T.contiguous()


def visible(lists: Lists, k: Tensor) -> Tensor:
    """(hc, n, n_k) bool: which keys each query sees."""
    blocks = len(lists.starts) - 1
    position = torch.arange(len(lists.keys), device=k.device)
    block = torch.searchsorted(lists.starts.long(), position, right=True) - 1
    chosen = lists.chosen.long()
    sees_block = torch.zeros(*chosen.shape[:2], blocks + 1, dtype=torch.bool, device=k.device)
    sees_block.scatter_(2, torch.where(chosen < 0, blocks, chosen), True)
    seen = torch.zeros(*chosen.shape[:2], len(k), dtype=torch.bool, device=k.device)
    seen[:, :, lists.keys.long()] = sees_block[:, :, block]
    return seen
