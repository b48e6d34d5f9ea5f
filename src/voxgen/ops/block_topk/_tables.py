"""Tables that the choice of blocks reads, and the choice where there is none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.ops.blocks import SSAPlan


class Tables(NamedTuple):
    """Compression tokens by block, and blocks by sample.

    children: (n_c,) int32 rows of k_c, block by block.
    starts: (m + 1,) int32 where each block begins in `children`.
    offsets: (b + 1,) int64 bounds of the samples in q.
    block_offsets: (b + 1,) int64 first block of each sample.
    own: (n,) int32 block that a query gets in any case; (0,) where none is forced.
    most_children: compression tokens of the fullest block.
    most_blocks: blocks of the sample that has most.
    """

    children: Tensor
    starts: Tensor
    offsets: Tensor
    block_offsets: Tensor
    own: Tensor
    most_children: int
    most_blocks: int


def tables_of(plan: SSAPlan, own_block: bool) -> Tables:
    """The tables of a plan; they are kept with it."""
    folding, selection = plan.folding, plan.selection
    offsets = plan.grid.offsets
    most = plan.grid.cached(("most blocks", selection.size), lambda: max(selection.offsets.diff().tolist(), default=0))
    own = selection.block if own_block else selection.block[:0]
    return Tables(folding.rows, folding.starts, offsets, selection.offsets, own, folding.longest, most)


def all_blocks(tables: Tables, queries: int, key_heads: int, top_k: int) -> Tensor:
    """(Hk, n, top_k): the blocks of each query's sample, which are no more than top_k."""
    counts = tables.offsets.diff()
    first, last = (tables.block_offsets[i : i + len(counts)] for i in (0, 1))
    blocks = first[:, None] + torch.arange(top_k, device=first.device)
    blocks = torch.where(blocks < last[:, None], blocks, -1).int()
    each = blocks.repeat_interleave(counts, 0, output_size=queries)
    return each.expand(key_heads, -1, -1).contiguous()


def in_order(blocks: Tensor, count: int) -> Tensor:
    """Blocks of a query ascending, `count` and above (no block) as -1 behind them; int32."""
    blocks = blocks.sort(-1).values
    return torch.where(blocks >= count, -1, blocks).int()
