"""What decoding gives."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import Coords
from voxgen.ops.resample import Structure
from voxgen.representations import SparseFlex, SparseFlexPrediction

__all__ = ["DecodedFlex", "EmittedFlex"]


@dataclass(frozen=True, eq=False)
class DecodedFlex:
    """What a decode gives.

    Attributes:
        features: (m, 53) raw features on the finest grid, four times as fine as the latent: of `SparseFlex.from_features`.
        structures: one a step, coarse → fine: which children there are. A tiled decode has those that it was given, or none.
        logits: one a step, coarse → fine: (p, 8) raw occupancy logits of all children of the p cells that enter the step, slot =
            x + 2y + 4z. Targets for them: `occupied_children`, or `structure.mask()` of a true structure. None from a tiled decode.
    """

    features: SparseTensor
    structures: tuple[Structure, ...] = ()
    logits: tuple[SparseTensor, ...] = ()

    @property
    def flex(self) -> SparseFlex:
        """The field that the features mean, to extract, render, measure or save. Differentiable."""
        return self.prediction().flex

    def prediction(self) -> SparseFlexPrediction:
        """The field, and what each cell says by itself, for the consistency term."""
        return SparseFlex.predict(self.features.grid, self.features.feats)


@dataclass(frozen=True, eq=False)
class EmittedFlex:
    """What the released decoder emits box by box: cells between two boxes come more than once, with other numbers.

    Attributes:
        coords: (m, 4) int32 [batch, x, y, z] in the order of emission: boxes x slowest, in a box children after their parents' order.
        features: (m, 53).
        grid: (n cells) the different cells among them.
    """

    coords: Coords
    features: Float[Tensor, "m c"]
    grid: VoxelGrid

    @property
    def repeats(self) -> int:
        """Rows beyond the first of their cell."""
        return len(self.coords) - len(self.grid)

    @property
    def flex(self) -> SparseFlex:
        """The field as the release reads it: corners average all copies of a cell, weights are those of the last. Differentiable."""
        g = self.grid
        return SparseFlex.from_rows(
            self.coords, self.features, resolution=g.resolution, batch_size=g.batch_size, frame=g.frame, compat="triposf"
        )
