"""Full attention by the engines of block attention: each sample is one block of keys, which its queries see."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from voxgen.ops.block_attention._lists import one_block_each, rows
from voxgen.ops.block_attention._run import run


def _attend(engine: str, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, scale: float) -> Tensor:
    queries = rows(len(q), q.device)
    sample = torch.searchsorted(offsets, queries.long(), right=True, out_int32=True) - 1  # of a size that a compiler knows
    lists = one_block_each(sample, key_offsets.int(), rows(len(k), k.device), queries, len(k))
    return run(engine, q, k, v, lists, scale).out


attend_numba = partial(_attend, "numba")
attend_triton = partial(_attend, "triton")
attend_torch = partial(_attend, "torch")
