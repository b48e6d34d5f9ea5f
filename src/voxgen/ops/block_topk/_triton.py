"""Choice of blocks on GPUs."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from voxgen.ops.block_attention._triton import on_device, precision

from ._op import run
from ._tables import Tables
from ._triton_kernels import choose_kernel

LOG2_E = 1.4426950408889634
QUERIES = 64
"""Queries of a program."""
COLUMNS = 64
"""Compression tokens at once, about."""


def choose(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """See `block_topk`."""
    return run("triton", q, k_c, lse, tables, top_k, scale)


def select(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """(Hk, n, top_k) int32."""
    n, heads, width = q.shape
    key_heads, samples = k_c.shape[1], len(tables.offsets) - 1
    chosen = torch.full((key_heads, n, top_k), -1, dtype=torch.int32, device=q.device)
    if n == 0:
        return chosen
    kinds, bounds = kinds_of(tables)
    tiles = tiles_of(tables.offsets, n, QUERIES)
    constants: dict[str, Any] = {
        "HEADS": heads,
        "KEY_HEADS": key_heads,
        "BQ": QUERIES,
        "D": width,
        "DP": max(16, triton.next_power_of_2(width)),
        "BN": COLUMNS,
        "KINDS": len(bounds),
        "TOP_K": top_k,
        "TP": triton.next_power_of_2(max(top_k, 2)),
        "OWN": len(tables.own) > 0,
        "NO_BLOCK": 2**31 - 1,
        "PRECISION": precision(),
        "num_warps": 4,
        "enable_fp_fusion": True,
    }
    with on_device(q):
        choose_kernel[(len(tiles[0]), key_heads)](
            q.contiguous(),
            k_c.index_select(0, tables.children).contiguous(),
            lse.contiguous(),
            tables.starts,
            kinds,
            bounds,
            *tiles,
            tables.own,
            chosen,
            n,
            samples,
            scale * LOG2_E,
            **constants,
        )
    return chosen


def kinds_of(tables: Tables) -> tuple[Tensor, Tensor]:
    """(m,) int32 blocks by kind and number, and (kinds, b + 1) int32 where the blocks of a kind and sample begin.

    A block of kind i has up to 2ⁱ compression tokens, more than half as many.
    """
    kinds = max(1, (tables.most_children - 1).bit_length() + 1)
    counts = tables.starts.diff()
    steps = 2 ** torch.arange(kinds, device=counts.device)
    kind = torch.searchsorted(steps, counts.long())
    samples = len(tables.offsets) - 1
    number = torch.arange(len(counts), device=counts.device)
    sample = torch.searchsorted(tables.block_offsets, number, right=True) - 1
    ordered, blocks = (kind * (samples + 1) + sample).sort(stable=True)
    edges = torch.arange(kinds * (samples + 1), device=counts.device)
    return blocks.int(), torch.searchsorted(ordered, edges).int().view(kinds, samples + 1)


def tiles_of(offsets: Tensor, n: int, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, first query and end of each tile of queries, no tile in two samples; those behind the last are empty."""
    counts = offsets.diff()
    ends = ((counts + queries - 1) // queries).cumsum(0)
    most = n // queries + len(counts)  # each sample leaves one tile that is not full
    number = torch.arange(most, device=offsets.device)
    sample = torch.searchsorted(ends, number, right=True)
    used = sample < len(counts)
    sample = torch.where(used, sample, 0)
    before = torch.nn.functional.pad(ends, (1, 0))[sample]
    first = offsets[sample] + (number - before) * queries
    last = torch.minimum(first + queries, offsets[sample + 1])
    return sample.int(), torch.where(used, first, 0), torch.where(used, last, 0)
