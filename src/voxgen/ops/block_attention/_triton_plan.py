"""Tables for the kernels: unions of blocks for tiles of queries, and for each block the queries that see it, cut in segments.

Torch operations of fixed sizes, so nothing waits for the device. Lists are very uneven (some blocks are seen by twenty times as
many queries as others), so a block's list is cut in segments of equal length.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._lists import Lists


class Unions(NamedTuple):
    """For each tile of queries the blocks that one of them sees.

    blocks: (hc, tiles, e) int32, the used ones first, ascending.
    bits: (hc, tiles, e) int64: bit i says that the tile's query i sees the block.
    counts: (hc, tiles) int32 used ones.
    """

    blocks: Tensor
    bits: Tensor
    counts: Tensor


class Segments(NamedTuple):
    """Lists of queries by block, cut in segments.

    members: (hc, n · T) int32 rows of q, block by block.
    block: (hc, s) int32 block of each segment, m for one that is not used.
    begin, end: (hc, s) int32 bounds in `members`.
    row: (hc, s) int64 where the segment's sums begin: one row a key of its block.
    first, counts: (hc, m) int32 first segment of a block, and how many it has.
    rows: at least the number of all sums.
    """

    members: Tensor
    block: Tensor
    begin: Tensor
    end: Tensor
    row: Tensor
    first: Tensor
    counts: Tensor
    rows: int


def unions_of(lists: Lists, queries_a_tile: int) -> Unions:
    """Unions for tiles of up to 64 queries."""
    heads, n, width = lists.chosen.shape
    blocks, device = len(lists.starts) - 1, lists.chosen.device
    chosen = lists.chosen.index_select(1, lists.queries).long()
    chosen = torch.nn.functional.pad(chosen, (0, 0, 0, -n % queries_a_tile), value=-1)
    chosen = torch.where(chosen < 0, blocks, chosen).view(heads, -1, queries_a_tile * width)
    ordered, index = chosen.sort(2)
    bit = torch.ones((), dtype=torch.int64, device=device) << (index // width)
    used = ordered < blocks
    first = used & torch.nn.functional.pad(ordered[..., 1:] != ordered[..., :-1], (1, 0), value=True)
    slot = first.long().cumsum(2) - 1
    slot = torch.where(used, slot, chosen.shape[2])  # what is not used goes to a slot behind the last
    sizes = *chosen.shape[:2], chosen.shape[2] + 1
    union = torch.zeros(sizes, dtype=torch.int64, device=device).scatter_(2, slot, ordered)
    bits = torch.zeros(sizes, dtype=torch.int64, device=device).scatter_add_(2, slot, bit)
    return Unions(union[..., :-1].int().contiguous(), bits[..., :-1].contiguous(), first.sum(2, dtype=torch.int32))


def segments_of(lists: Lists, length: int) -> Segments:
    """Lists in segments of up to `length` queries."""
    heads, n, width = lists.chosen.shape
    blocks, device = len(lists.starts) - 1, lists.chosen.device
    chosen = lists.chosen.index_select(1, lists.queries).view(heads, n * width).long()
    ordered, index = torch.where(chosen < 0, blocks, chosen).sort(dim=1, stable=True)
    members = lists.queries[index // max(width, 1)]
    edges = torch.arange(blocks + 1, device=device).expand(heads, -1).contiguous()
    bounds = torch.searchsorted(ordered, edges)
    counts = (bounds.diff(dim=1) + length - 1) // length
    ends = counts.cumsum(1)
    # a list of no more than one segment each leaves as many as blocks; else each whole segment adds one
    most = blocks if length >= n else n * width // length + blocks
    number = torch.arange(most, device=device).expand(heads, -1).contiguous()
    block = torch.searchsorted(ends, number, right=True)
    padded = torch.nn.functional.pad(ends - counts, (0, 1))
    begin = bounds.gather(1, block) + (number - padded.gather(1, block)) * length
    last = torch.nn.functional.pad(bounds, (0, 1), mode="replicate").gather(1, block + 1)
    unused = block == blocks
    begin, end = (torch.where(unused, 0, t) for t in (begin, torch.minimum(begin + length, last)))
    sizes = torch.nn.functional.pad(lists.starts.long().diff(), (0, 1))[block]
    rows = len(lists.keys) if length >= n else most * lists.longest
    return Segments(members.int(), block.int(), begin.int(), end.int(), sizes.cumsum(1) - sizes, (ends - counts).int(), counts.int(), rows)
