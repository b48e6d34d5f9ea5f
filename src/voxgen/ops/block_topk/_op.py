"""The engines as one custom operator, so that `torch.compile` knows them. An engine is a function `choose` with tables of its own order."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ._tables import Tables

_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define(
    "block_topk(Tensor q, Tensor k_c, Tensor lse, Tensor children, Tensor starts, Tensor offsets, Tensor block_offsets, Tensor own, "
    "int most_children, int most_blocks, int top_k, float scale, str engine) -> Tensor"
)


def run(engine: str, q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """Call an engine through the operator."""
    return torch.ops.voxgen.block_topk(q, k_c, lse, *tables, top_k, scale, engine)


@torch.library.impl(_LIBRARY, "block_topk", "CompositeExplicitAutograd")
def _choose(q: Tensor, k_c: Tensor, lse: Tensor, *rest: Any) -> Tensor:
    *tables, top_k, scale, engine = rest
    module = importlib.import_module(f"voxgen.ops.block_topk._{engine}")
    return module.select(q.detach(), k_c.detach(), lse.detach(), Tables(*tables), top_k, scale)


@torch.library.register_fake("voxgen::block_topk")
def _(q: Tensor, k_c: Tensor, lse: Tensor, *rest: Any) -> Tensor:
    return q.new_empty(k_c.shape[1], q.shape[0], rest[-3], dtype=torch.int32)
