"""NeighborTable: the record that convolutions take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._key import NeighborKey
from ._relation import Relation


@dataclass(frozen=True, eq=False)
class NeighborTable:
    """For each output cell and each offset of a footprint, the input cell that meets it.

    Made by `neighbor_table`. The record is light; the rows and the plans that engines derive from them are shared by all
    records of one grid and footprint.

    Attributes:
        in_grid: (n_in cells) where features come from.
        out_grid: (n_out cells) where they go; `in_grid` itself for a submanifold table.
        key: the footprint.
        relation: the rows, private to the ops.
        is_transposed: True if the rows are read from the inputs' side of the relation.
    """

    in_grid: VoxelGrid
    out_grid: VoxelGrid
    key: NeighborKey
    relation: Relation
    is_transposed: bool = False

    @property
    def table(self) -> Int32[Tensor, "n_out K"]:
        """(n_out, K) int32 rows of `in_grid`, -1 where there is no cell; offsets x slowest, z fastest."""
        return self.relation.backward if self.is_transposed else self.relation.forward

    @property
    def volume(self) -> int:
        """Number of offsets K."""
        return self.key.volume

    @property
    def is_symmetric(self) -> bool:
        """True if the table is its own transpose with the offsets in reverse order."""
        return self.relation.symmetric

    @property
    def device(self) -> torch.device:
        return self.relation.forward.device

    @property
    def facts(self) -> dict[str, object]:
        """What a backend may look at before it accepts a convolution on this table."""
        own = self.is_symmetric and self.out_grid is self.in_grid and not self.is_transposed
        return {"submanifold": own, "dilation": self.key.dilation, "volume": self.volume}

    def __len__(self) -> int:
        return len(self.out_grid)

    def __repr__(self) -> str:
        tail = ", transposed" if self.key.transposed else ""
        k, d, s = self.key.kernel_size, self.key.dilation, self.key.stride
        return f"NeighborTable({len(self.in_grid)} -> {len(self.out_grid)} cells, kernel {k}, dilation {d}, stride {s}{tail})"

    def transposed(self) -> NeighborTable:
        """The same pairs with inputs and outputs exchanged: `t.transposed().table[i, k] = o` where `t.table[o, k] = i`.

        A convolution on it, with weights (K, Co, Ci), is the adjoint of the convolution on this one with weights (K, Ci, Co).
        """
        key = dataclasses.replace(self.key, transposed=not self.key.transposed)
        return NeighborTable(self.out_grid, self.in_grid, key, self.relation, not self.is_transposed)

    def restricted(self, rows: Tensor) -> NeighborTable:
        """The same footprint for some of the outputs: rows (m,) ascending rows of `out_grid`, int32 or int64. Nothing is kept."""
        index = rows.long()
        relation = Relation(self.table.index_select(0, index), len(self.in_grid), symmetric=False)
        return NeighborTable(self.in_grid, self.out_grid.select(index), self.key, relation)

    def num_pairs(self) -> int:
        """Number of entries that are not -1. Reads values once, then keeps the number."""
        return self.relation.derived(("pairs",), lambda: int((self.relation.forward >= 0).sum()))
