"""Lists: which keys each query sees. What every kind of block attention is brought to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.ops.blocks import Blocks


class Lists(NamedTuple):
    """Blocks of keys, and the blocks that each query sees.

    chosen: (hc, n, T) int32 blocks of each query, -1 for none, each block once; hc is 1 where all key heads share the
        lists, else the number of key heads.
    starts: (m + 1,) int32 where each block begins in `keys`.
    keys: (l,) int32 rows of k, block by block; a row that is not listed is seen by nobody.
    queries: (n,) int32 all rows of q in an order in which neighbours see much the same blocks. It never changes a result.
    longest: at least the number of keys of the fullest block.
    """

    chosen: Tensor
    starts: Tensor
    keys: Tensor
    queries: Tensor
    longest: int

    @property
    def is_partition(self) -> bool:
        """True if each query sees one block at most, the same in all heads."""
        return self.chosen.shape[0] == 1 and self.chosen.shape[2] == 1


def one_block_each(block: Tensor, starts: Tensor, keys: Tensor, queries: Tensor, longest: int) -> Lists:
    """Lists of queries that see one block: (n,) int32 `block`."""
    return Lists(block[None, :, None], starts, keys, queries, longest)


def lists_of_blocks(chosen: Tensor, blocks: Blocks, key_mask: Tensor | None) -> Lists:
    """Lists over the blocks of a grid, without the keys that a mask leaves out."""
    if key_mask is None:
        return Lists(chosen, blocks.starts, blocks.rows, blocks.rows, blocks.longest)
    kept = key_mask[blocks.rows.long()]
    before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
    return Lists(chosen, before[blocks.starts.long()].int(), blocks.rows[kept], blocks.rows, blocks.longest)


def rows(count: int, device: torch.device) -> Tensor:
    """(count,) int32 rows in their own order."""
    return torch.arange(count, dtype=torch.int32, device=device)
