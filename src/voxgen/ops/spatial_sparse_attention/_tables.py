"""What the fused call knows of the grid, as plain tensors and numbers, which is what operators take."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from voxgen.ops.block_attention._compression import compression_lists
from voxgen.ops.block_attention._lists import Lists, lists_of_blocks
from voxgen.ops.block_topk._tables import Tables, tables_of
from voxgen.ops.blocks import SSAPlan


class Branches(NamedTuple):
    """Lists of the compression and window branch, tables of the choice, and the selection blocks.

    selection: lists of the selection branch, but for the choice, which is empty here.
    """

    compression: Lists
    choice: Tables
    selection: Lists
    window: Lists

    def selected(self, chosen: Tensor) -> Lists:
        """Lists of the selection branch."""
        return self.selection._replace(chosen=chosen)


def flatten(plan: SSAPlan, shift: int, own_block: bool, key_mask: Tensor | None = None) -> tuple[list[Tensor], list[int]]:
    """The plan as tensors and numbers."""
    compression, choice, windows = compression_lists(plan), tables_of(plan, own_block), plan.windows(shift)
    none = plan.selection.rows.new_zeros(0)
    selection = lists_of_blocks(none, plan.selection, key_mask)
    window = lists_of_blocks(windows.block[None, :, None], windows, key_mask)
    tensors = [*compression[:4], *choice[:5], *selection[:4], *window[:4]]
    return tensors, [compression.longest, choice.most_children, choice.most_blocks, selection.longest, window.longest]


def unflatten(tensors: list[Tensor], numbers: list[int]) -> Branches:
    """Inverse of `flatten`."""

    def lists(first: int, longest: int) -> Lists:
        chosen, starts, keys, queries = tensors[first : first + 4]
        return Lists(chosen, starts, keys, queries, longest)

    children, folds, offsets, block_offsets, own = tensors[4:9]
    most_seen, most_children, most_blocks, longest, longest_window = numbers
    choice = Tables(children, folds, offsets, block_offsets, own, most_children, most_blocks)
    return Branches(lists(0, most_seen), choice, lists(9, longest), lists(13, longest_window))
