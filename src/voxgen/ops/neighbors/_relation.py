"""Relation: which input row meets which output row under which offset, and what derives from that."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


class Relation:
    """The rows of a neighbour table, seen from the outputs, and lazily from the inputs.

    It refers to no grid, so that a grid can keep it without a cycle that would hold memory after the grid is dropped.

    Args:
        forward: (n_out, K) int32 input rows, -1 absent.
        n_in: number of input rows.
        symmetric: True if the table is its own transpose with the offsets in reverse order (submanifold).
    """

    __slots__ = ("_backward", "_derived", "forward", "n_in", "symmetric")

    def __init__(self, forward: Tensor, n_in: int, symmetric: bool) -> None:
        self.forward = forward
        self.n_in = n_in
        self.symmetric = symmetric
        self._backward: Tensor | None = None
        self._derived: dict[Hashable, Any] = {}

    @property
    def backward(self) -> Tensor:
        """(n_in, K) int32: the output row that uses input i under offset k, -1 where none does. Kept after the first use."""
        if self._backward is None:
            with torch.inference_mode(False):  # what is made during inference must serve training later
                self._backward = self.forward.flip(1) if self.symmetric else transpose_rows(self.forward, self.n_in)
        return self._backward

    def derived(self, key: Hashable, build: Callable[[], T]) -> T:
        """The engine's plan under `key`, built on the first call."""
        if key not in self._derived:
            with torch.inference_mode(False):
                self._derived[key] = build()
        return cast(T, self._derived[key])


def transpose_rows(table: Tensor, n_in: int) -> Tensor:
    """(n_out, K) rows of the inputs → (n_in, K) rows of the outputs. An input has at most one output under each offset."""
    n_out, volume = table.shape
    result = torch.full((n_in + 1, volume), -1, dtype=torch.int32, device=table.device)  # the last row takes what is absent
    target = torch.where(table >= 0, table, n_in).long()
    rows = torch.arange(n_out, dtype=torch.int32, device=table.device)[:, None].expand(n_out, volume)
    return result.scatter_(0, target, rows)[:n_in]
