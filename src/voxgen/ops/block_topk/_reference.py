"""The definition: the scores of all blocks, and a stable sort. Memory grows with queries × compression tokens: for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from ._tables import Tables, in_order


def choose(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """See `block_topk`."""
    score = scores(q, k_c, lse, tables, scale)
    blocks = score.shape[2]
    score = torch.where(score.isnan(), -1, score)
    sample = torch.repeat_interleave(tables.offsets.diff())
    block_sample = torch.repeat_interleave(tables.block_offsets.diff())
    score = score.masked_fill(sample[:, None] != block_sample, -2)
    if len(tables.own):
        score.scatter_(2, tables.own.long().expand(len(score), -1)[..., None], torch.inf)
    ranked, index = score.sort(dim=2, descending=True, stable=True)
    index = torch.where(ranked == -2, blocks, index)[:, :, :top_k]
    return in_order(index, blocks)


def scores(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, scale: float) -> Tensor:
    """(Hk, n, m) score of each block, 0 for those of other samples."""
    shares = compression_scores(q, k_c, lse, tables, scale)
    block = torch.repeat_interleave(tables.starts.diff()).long()
    folded = shares.new_zeros(*shares.shape[:2], len(tables.starts) - 1)
    return folded.index_add(2, block, shares[:, :, tables.children.long()])


def compression_scores(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, scale: float) -> Tensor:
    """(Hk, n, n_c) share of each compression token, summed over the heads of a group; 0 in other samples."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    n, heads, width = q.shape
    key_heads = k_c.shape[1]
    grouped = q.to(wide).view(n, key_heads, heads // key_heads, width)
    logits = torch.einsum("ngjd,cgd->gjnc", grouped, k_c.to(wide)) * scale
    share = (logits - lse.to(wide).view(n, key_heads, -1).permute(1, 2, 0)[..., None]).exp().sum(1)
    sample = torch.repeat_interleave(tables.offsets.diff())
    block_sample = torch.repeat_interleave(tables.block_offsets.diff())
    child_sample = torch.empty(len(k_c), dtype=torch.int64, device=q.device)
    child_sample[tables.children.long()] = block_sample.repeat_interleave(tables.starts.diff())
    return share.masked_fill(sample[:, None] != child_sample, 0)
