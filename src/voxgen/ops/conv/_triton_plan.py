"""Tiles of output rows that skip what none of their rows needs: masks, order, and lists of offsets. Torch operations only.

Rows with the same present offsets are brought together (the order is that of the Gray code of the mask, in which
neighbours differ in one offset). A tile then visits the union of its rows' offsets: 15 to 20 of 27 on a surface, where
rows in spatial order would visit 26. Nothing waits for the device, because all lists have a fixed size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

MASK_BITS = 62


class Tiles(NamedTuple):
    """Rows of a table in tiles of equal size.

    order: (tiles · rows,) int32 output rows, -1 behind the last.
    offsets: (tiles, K) int32 offsets that a tile visits, ascending, the used ones first.
    offset_counts: (tiles,) int32 how many of them are used.
    tiles: (K, tiles) int32 tiles that visit an offset, ascending, the used ones first.
    tile_counts: (K,) int32 how many of them are used.
    """

    order: Tensor
    offsets: Tensor
    offset_counts: Tensor
    tiles: Tensor
    tile_counts: Tensor

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return self.order.shape[0] // max(1, self.offsets.shape[0])


def tiles_of(table: NeighborTable, rows: int) -> Tiles:
    """The tiles of a table, kept with it."""
    return table.relation.derived(("tiles", table.is_transposed, rows), lambda: make_tiles(table.table, rows))


def make_tiles(table: Tensor, rows: int) -> Tiles:
    n_out, volume = table.shape
    present = table >= 0
    order = torch.argsort(_gray_rank(_masks(present)), stable=True).int()
    order = torch.nn.functional.pad(order, (0, -n_out % rows), value=-1)
    sorted_present = torch.nn.functional.pad(present, (0, 0, 0, 1))[order.long()]  # row -1 has no offset
    union = sorted_present.view(-1, rows, volume).any(1)
    return Tiles(order, *_used_first(union), *_used_first(union.T))


def _masks(present: Tensor) -> Tensor:
    """(n_out,) int64: one bit an offset, or a group of offsets where there are more than fit."""
    volume = present.shape[1]
    bits = min(volume, MASK_BITS)
    mask = torch.zeros(present.shape[0], dtype=torch.int64, device=present.device)
    for bit in range(bits):
        group = present[:, bit * volume // bits : (bit + 1) * volume // bits]
        mask |= group.any(1).long() << bit
    return mask


def _gray_rank(mask: Tensor) -> Tensor:
    """Position of a word in the Gray code."""
    rank, shift = mask, 1
    while shift < MASK_BITS:
        rank = rank ^ (rank >> shift)
        shift *= 2
    return rank


def _used_first(used: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of a boolean matrix: its columns with the true ones first, in order, and their number."""
    columns = torch.sort((~used).to(torch.uint8), dim=1, stable=True).indices
    return columns.int().contiguous(), used.sum(1, dtype=torch.int32)
