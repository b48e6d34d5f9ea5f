"""What the fused call knows of the grid, as plain tensors and numbers, which is what operators take."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from voxgen.ops.block_attention._compression import compression_lists
from voxgen.ops.block_attention._lists import Lists
from voxgen.ops.block_topk._tables import Tables, tables_of
from voxgen.ops.blocks import SSAPlan


class Branches(NamedTuple):
    """Lists of the compression and window branch, tables of the choice, and the selection blocks.

    selection: rows of k block by block, and where each block begins.
    longest: tokens of the fullest selection block.
    """

    compression: Lists
    choice: Tables
    selection: tuple[Tensor, Tensor]
    longest: int
    window: Lists

    def selected(self, chosen: Tensor) -> Lists:
        """Lists of the selection branch."""
        rows, starts = self.selection
        return Lists(chosen, starts, rows, rows, self.longest)


def flatten(plan: SSAPlan, shift: int, own_block: bool) -> tuple[list[Tensor], list[int]]:
    """The plan as tensors and numbers."""
    compression, choice, windows = compression_lists(plan), tables_of(plan, own_block), plan.windows(shift)
    selection = plan.selection
    tensors = [*compression[:4], *choice[:5], selection.rows, selection.starts, windows.block[None, :, None], windows.starts, windows.rows]
    return tensors, [compression.longest, choice.most_children, choice.most_blocks, selection.longest, windows.longest]


def unflatten(tensors: list[Tensor], numbers: list[int]) -> Branches:
    """Inverse of `flatten`."""
    seen, seen_starts, seen_rows, queries = tensors[:4]
    children, folds, offsets, block_offsets, own = tensors[4:9]
    rows, starts, window, window_starts, window_rows = tensors[9:]
    most_seen, most_children, most_blocks, longest, longest_window = numbers
    return Branches(
        Lists(seen, seen_starts, seen_rows, queries, most_seen),
        Tables(children, folds, offsets, block_offsets, own, most_children, most_blocks),
        (rows, starts),
        longest,
        Lists(window, window_starts, window_rows, window_rows, longest_window),
    )
