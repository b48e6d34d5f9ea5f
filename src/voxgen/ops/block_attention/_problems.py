"""Block attention as batches of small dense problems: some queries, some keys, filled up to equal size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._lists import Lists

LOGITS = 1 << 23
"""Logits at once: three arrays of them stay below 100 MB in float32."""
PIECE = 512
"""Queries of a problem: a block of more is cut."""


class Problem(NamedTuple):
    """A batch of p problems in which `r` queries see `c` keys.

    queries: (p, r) int64 rows of q, n where filled up.
    keys: (p, c) int64 rows of k, n_k where filled up.
    key_heads: which of them, as a slice.
    head_slice: the query heads that read them.
    """

    queries: Tensor
    keys: Tensor
    key_heads: slice
    head_slice: slice


def problems(lists: Lists, heads: int, key_heads: int, key_count: int) -> Iterator[Problem]:
    """All pairs of queries and keys, each once."""
    if lists.chosen.shape[1] == 0 or len(lists.keys) == 0 or lists.chosen.shape[2] == 0:
        return
    keys = torch.cat((lists.keys.long(), lists.keys.new_full((1,), key_count, dtype=torch.int64)))
    if lists.is_partition:
        for queries, columns in _by_block(lists, heads):
            yield Problem(queries, keys[columns], slice(0, key_heads), slice(0, heads))
        return
    shared = len(lists.chosen) == 1
    per_list, groups = key_heads if shared else 1, heads // key_heads
    for i in range(len(lists.chosen)):
        own = slice(i * per_list, (i + 1) * per_list)
        for queries, columns in _by_query(lists, i, groups * per_list):
            yield Problem(queries, keys[columns], own, slice(own.start * groups, own.stop * groups))


def _by_query(lists: Lists, which: int, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One query a problem: the tokens of its blocks side by side."""
    chosen, starts = lists.chosen[which].long(), lists.starts.long()
    place = torch.arange(lists.longest, device=chosen.device)
    step = max(1, LOGITS // max(1, heads * chosen.shape[1] * lists.longest))
    for queries in lists.queries.long().split(step):
        blocks = chosen[queries]
        first, last = starts[blocks], starts[blocks + 1]
        columns = first[..., None] + place
        inside = (columns < last[..., None]) & (blocks >= 0)[..., None]
        columns = torch.where(inside, columns, len(lists.keys)).flatten(1)
        width = int(inside.sum((1, 2)).max())
        # sorted, the filled-up entries are last, so that the batch is as narrow as its widest member
        yield queries[:, None], columns.sort(1).values[:, : max(width, 1)]


def _by_block(lists: Lists, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All queries of one block a problem, similar sizes together."""
    block = lists.chosen[0, :, 0].long()
    order = torch.argsort(block, stable=True)
    none = int((block < 0).sum())
    order = order[none:]
    counts = torch.bincount(block[order], minlength=len(lists.starts) - 1)
    first = counts.cumsum(0) - counts
    widths = lists.starts.long().diff()
    pieces = torch.where(widths > 0, (counts + PIECE - 1) // PIECE, 0)
    owner = torch.repeat_interleave(pieces)
    number = torch.arange(len(owner), device=owner.device) - (pieces.cumsum(0) - pieces)[owner]
    start = first[owner] + number * PIECE
    height = torch.minimum(counts[owner] - number * PIECE, counts.new_tensor(PIECE))
    ranked = torch.argsort(widths[owner] * (PIECE + 1) + height, stable=True)
    at = 0
    sizes = torch.stack((height[ranked], widths[owner][ranked]), 1).tolist()
    while at < len(sizes):
        end, rows, columns = at, 0, 0
        while end < len(sizes):
            r, c = max(rows, sizes[end][0]), max(columns, sizes[end][1])
            if end > at and (end + 1 - at) * r * c * heads > LOGITS:
                break
            end, rows, columns = end + 1, r, c
        part = ranked[at:end]
        yield (
            _span(start[part], height[part], rows, order, len(lists.queries)),
            _span(lists.starts.long()[owner[part]], widths[owner[part]], columns, None, len(lists.keys)),
        )
        at = end


def _span(start: Tensor, length: Tensor, size: int, order: Tensor | None, filler: int) -> Tensor:
    place = torch.arange(size, device=start.device)
    index = start[:, None] + place
    inside = place < length[:, None]
    if order is not None:
        index = order[index.clamp_max(len(order) - 1)]
    return torch.where(inside, index, filler)
