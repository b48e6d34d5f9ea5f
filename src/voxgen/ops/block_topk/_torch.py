"""Choice of blocks with plain torch operations, on any device: sample by sample, some queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ._op import run
from ._tables import Tables, in_order

LOGITS = 1 << 23
"""Logits at once."""
NO_BLOCK = 2**31 - 1


def choose(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """See `block_topk`."""
    return run("torch", q, k_c, lse, tables, top_k, scale)


def select(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """(Hk, n, top_k) int32."""
    n, heads, width = q.shape
    key_heads = k_c.shape[1]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    result = torch.full((key_heads, n, top_k), -1, dtype=torch.int32, device=q.device)
    tokens, blocks, starts = tables.offsets.tolist(), tables.block_offsets.tolist(), tables.starts.long()
    place = torch.arange(tables.most_children, device=q.device)
    for s in range(len(tokens) - 1):
        if tokens[s] == tokens[s + 1]:
            continue
        own_starts = starts[blocks[s] : blocks[s + 1] + 1]
        columns = own_starts[:-1, None] + place
        inside = columns < own_starts[1:, None]
        children = tables.children.long()[torch.where(inside, columns, 0)]  # (m of the sample, most_children)
        keys = k_c[children.flatten()].to(wide).permute(1, 2, 0)
        step = max(1, LOGITS // (heads * children.numel()))
        for first in range(tokens[s], tokens[s + 1], step):
            some = slice(first, min(first + step, tokens[s + 1]))
            grouped = q[some].to(wide).view(-1, key_heads, heads // key_heads, width).transpose(0, 1)
            shares = (grouped.flatten(1, 2) @ keys).mul_(scale).view(*grouped.shape[:3], -1)
            shares = shares.sub_(lse[some].to(wide).view(-1, key_heads, heads // key_heads, 1).transpose(0, 1)).exp_().sum(2)
            score = shares.view(*shares.shape[:2], *children.shape).masked_fill_(~inside, 0).sum(3)
            if len(tables.own):
                own = (tables.own[some].long() - blocks[s]).expand(key_heads, -1)
                score.scatter_(2, own[..., None], torch.inf)
            found = _largest(score, top_k)
            kept = found.shape[2]
            result[:, some, :kept] = in_order(found + blocks[s], NO_BLOCK)
    return result


def _largest(score: Tensor, top_k: int) -> Tensor:
    """(..., up to top_k) columns of the largest; the lower of equal ones; NaN last."""
    score = torch.where(score.isnan(), -1, score)
    if score.dtype != torch.float32:
        return score.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
    # above zero, floats sort like their bits, so that bits and column in one number settle ties; NaN's -1 is below all
    column = torch.arange(score.shape[-1], device=score.device)
    keys = (score.contiguous().view(torch.int32).long() << 32) | (NO_BLOCK - column)
    return NO_BLOCK - (keys.topk(min(top_k, score.shape[-1]), dim=-1).values & NO_BLOCK)
