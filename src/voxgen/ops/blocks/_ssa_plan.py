"""SSAPlan: all that spatial sparse attention needs to know of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.checks import require_int
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops.resample import Structure

from ._blocks import Blocks, partition


@dataclass(frozen=True, eq=False)
class SSAPlan:
    """Where the tokens of a grid are compressed, selected and windowed.

    Tokens are the cells of a grid in the grid's order; nobody sorts them. Build one plan for a grid and share it between
    layers, steps and guidance passes; the record is light, and its tables are built once and kept on the grid.

    Attributes:
        grid: (n cells) the tokens.
        compression: tokens and the compression tokens above them: `compression.parents` is their grid (n_c cells,
            lexicographic), `pool(feats, plan.compression, "mean_plus_one")` the released pooling.
        selection: (m blocks) the blocks that queries choose from.
        folding: compression tokens by the selection block they lie in; block i of both is the same.
        window: side of a window in cells.
    Example:
        >>> plan = SSAPlan.build(grid, compression_block=4, selection_block=8, window=8)
        >>> len(plan.selection) == len(plan.folding)
        True
    """

    grid: VoxelGrid
    compression: Structure
    selection: Blocks
    folding: Blocks
    window: int

    @staticmethod
    def build(grid: VoxelGrid, *, compression_block: int = 8, selection_block: int = 8, window: int = 8) -> SSAPlan:
        """The plan of a grid.

        Args:
            grid: the tokens; any batch, empty samples too.
            compression_block, selection_block, window: sides in cells; compression_block divides selection_block.
        Raises:
            RangeError: a side below 1, or compression_block does not divide selection_block.
        Source: Direct3D-S2 §3.3 (paper), where the sides are 4, 8, 8; the released v1.1 has 8, 8, 8.
        """
        where = "SSAPlan.build"
        small = require_int(where, "compression_block", compression_block, 1, MAX_RESOLUTION)
        large = require_int(where, "selection_block", selection_block, 1, MAX_RESOLUTION)
        side = require_int(where, "window", window, 1, MAX_RESOLUTION)
        if large % small:
            raise RangeError(
                f"{where}: compression_block must divide selection_block, so that a compression token lies in one selection block; "
                f"got {small} and {large}."
            )
        compression = Structure.of_children(grid, small)
        return SSAPlan(grid, compression, partition(grid, large), partition(compression.parents, large // small), side)

    @property
    def compressed(self) -> VoxelGrid:
        """(n_c cells) grid of the compression tokens."""
        return self.compression.parents

    def windows(self, shift: int = 0) -> Blocks:
        """The windows of a shift, kept on the grid."""
        return partition(self.grid, self.window, shift)

    @property
    def sample_blocks(self) -> Int32[Tensor, "n 2"]:
        """(n, 2) int32: first selection block of each token's sample, and the one after its last."""
        return self.grid.cached(("sample blocks", self.selection.size), self._sample_blocks)

    def _sample_blocks(self) -> Tensor:
        sample = self.grid.batch.long()
        return torch.stack((self.selection.offsets[sample], self.selection.offsets[sample + 1]), 1).int()

    def to_block_order(self, rows: Tensor) -> Tensor:
        """(n, ...) rows in the grid's order to the order of selection blocks, a copy. Differentiable."""
        return self.selection.to_block_order(rows)

    def from_block_order(self, rows: Tensor) -> Tensor:
        """The inverse of `to_block_order`. Differentiable."""
        return self.selection.from_block_order(rows)
