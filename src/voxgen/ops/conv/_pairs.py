"""Sparse convolution over the pairs of rows that exist, with plain torch operations.

Outputs are taken in chunks. Within a chunk all pairs are sorted by offset: one gathering, one product an offset, and one
sum of the products by output row. The lists are made once for a table and kept with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

CHUNK = 2048
"""Outputs at once: enough that a product an offset pays, few enough that the products of 256 channels stay below 64 MB."""


class Plan(NamedTuple):
    """Pairs of a table, chunk by chunk; 12 bytes a pair.

    source: (p,) int32 input row of each pair, by chunk, then offset, then output.
    target: (p,) int32 output row of each pair within its chunk, in the same order.
    products: (p,) int32 place within the chunk of each pair, by chunk, then output, then offset.
    starts: (n_out,) int32 where in `products`, counted from the chunk's start, those of each output begin.
    counts: (chunks, K) int64 on the CPU, pairs of each chunk and offset.
    """

    source: Tensor
    target: Tensor
    products: Tensor
    starts: Tensor
    counts: Tensor


def plan_of(table: NeighborTable) -> Plan:
    """The plan of a table, kept with it."""
    return table.relation.derived(("pairs plan", table.is_transposed), lambda: _make(table.table))


def _make(table: Tensor) -> Plan:
    source, target, products, starts, counts = [], [], [], [], []
    for part in table.split(CHUNK):
        present = part >= 0
        columns = present.T.contiguous()
        source.append(part.T[columns])
        target.append(columns.nonzero()[:, 1].int())
        place = columns.flatten().cumsum(0).sub_(1).view(columns.shape).T
        products.append(place[present].int())
        rows = present.sum(1)
        starts.append((rows.cumsum(0) - rows).int())
        counts.append(columns.sum(1))
    if not counts:
        none = torch.zeros(0, dtype=torch.int32, device=table.device)
        return Plan(none, none, none, none, torch.zeros(0, table.shape[1], dtype=torch.int64))
    return Plan(torch.cat(source), torch.cat(target), torch.cat(products), torch.cat(starts), torch.stack(counts).cpu())


def multiply(feats: Tensor, weight: Tensor, n_out: int, tensors: list[Tensor]) -> Tensor:
    """(n_out, Co) sums of feats[source] @ weight[k] over each output's pairs."""
    plan = Plan(*tensors)
    out = feats.new_empty(n_out, weight.shape[2])
    first = 0
    for chunk, counts in enumerate(plan.counts.tolist()):
        last = first + sum(counts)
        gathered = feats.index_select(0, plan.source[first:last])
        rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        out[rows] = _sum_products(gathered, weight, counts, plan.products[first:last], plan.starts[rows])
        first = last
    return out


def multiply_both(
    grad: Tensor, feats: Tensor, turned: Tensor, tensors: list[Tensor], need_feats: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of feats (n_in, Ci) and weight (K, Ci, Co) from the plan of the transposed table; `turned` is (K, Co, Ci)."""
    plan = Plan(*tensors)
    for_feats = torch.empty_like(feats)
    for_weight = feats.new_zeros(len(turned), feats.shape[1], grad.shape[1])
    first = 0
    for chunk, counts in enumerate(plan.counts.tolist()):
        last = first + sum(counts)
        gathered = grad.index_select(0, plan.source[first:last])
        rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        if need_feats:
            for_feats[rows] = _sum_products(gathered, turned, counts, plan.products[first:last], plan.starts[rows])
        if need_weight:
            partners = feats[rows].index_select(0, plan.target[first:last])
            for k, (left, right) in enumerate(zip(partners.split(counts), gathered.split(counts), strict=True)):
                for_weight[k].addmm_(left.T, right)
        first = last
    return for_feats if need_feats else None, for_weight if need_weight else None


def _sum_products(gathered: Tensor, weight: Tensor, counts: list[int], products: Tensor, starts: Tensor) -> Tensor:
    multiplied = gathered.new_empty(len(gathered), weight.shape[2])
    for k, (part, result) in enumerate(zip(gathered.split(counts), multiplied.split(counts), strict=True)):
        torch.mm(part, weight[k], out=result)
    return torch.nn.functional.embedding_bag(products, multiplied, starts, mode="sum")
