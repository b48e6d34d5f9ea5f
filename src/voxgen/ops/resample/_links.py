"""Links: which child row belongs to which parent row, and lists derived from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Links:
    """Rows of children and parents. It refers to no grid, so that a grid can keep it without a cycle.

    Args:
        parent: (n,) int32 parent row of each child.
        slot: (n,) int32 number of each child among its parent's, x fastest.
        num_parents: p.
        num_slots: children that a parent can have.
    """

    __slots__ = ("_groups", "_table", "num_parents", "num_slots", "parent", "slot")

    def __init__(self, parent: Tensor, slot: Tensor, num_parents: int, num_slots: int) -> None:
        self.parent = parent
        self.slot = slot
        self.num_parents = num_parents
        self.num_slots = num_slots
        self._table: Tensor | None = None
        self._groups: tuple[Tensor, Tensor] | None = None

    @property
    def table(self) -> Tensor:
        """(p, s) int32 child rows, -1 where there is none. Kept after the first use."""
        if self._table is None:
            self._table = _apart(self._make_table)
        return self._table

    @property
    def groups(self) -> tuple[Tensor, Tensor]:
        """(n,) int32 child rows, parent by parent, and (p + 1,) int32 where each parent's begin. Kept after the first use."""
        if self._groups is None:
            self._groups = _apart(self._make_groups)
        return self._groups

    def _make_table(self) -> Tensor:
        table = torch.full((self.num_parents * self.num_slots,), -1, dtype=torch.int32, device=self.parent.device)
        rows = torch.arange(len(self.parent), dtype=torch.int32, device=self.parent.device)
        place = self.parent.long() * self.num_slots + self.slot
        return table.index_copy_(0, place, rows).view(self.num_parents, self.num_slots)

    def _make_groups(self) -> tuple[Tensor, Tensor]:
        rows = torch.argsort(self.parent, stable=True).int()
        starts = torch.zeros(self.num_parents + 1, dtype=torch.int32, device=self.parent.device)
        counts = torch.zeros(self.num_parents, dtype=torch.int32, device=self.parent.device)
        counts.index_add_(0, self.parent.long(), torch.ones_like(self.parent))
        starts[1:] = counts.cumsum(0)
        return rows, starts


def _apart(build: Callable[[], T]) -> T:
    with torch.inference_mode(False):  # what is made during inference must serve training later
        return build()
