"""MaskGenerator: which cells of the finer levels a surface touches, predicted from a latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.layers import ChildPredictor, LayerNorm32, OctantUpsample
from voxgen.layers._checks import require_parents, require_width
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.resample import Structure

from .window_transformer import WindowTransformer

__all__ = ["MaskGenerator", "MaskPrediction", "mask_targets"]


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """What `MaskGenerator` gives.

    Attributes:
        structures: one a level, coarse → fine: the children that were kept.
        logits: one a level, (p, 8) for the children of `structures[i].parents`, slot = x + 2y + 4z.
    """

    structures: tuple[Structure, ...]
    logits: tuple[Float[Tensor, "p 8"], ...]


class MaskGenerator(nn.Module):
    """A transformer on the latent's cells, then for each level a predictor of children and features for those that are kept.

    Its weights are its own: it is trained alone or beside a decoder, frozen, or left out where the surface is known
    (`voxgen.ops.candidates.level_structures`). What it keeps is given to the decoder's upsamplers as `structure=`.

    Occupancy of coarse cells says little about where inside a cell the surface lies. Give it the fifteen numbers of
    `voxgen.ops.surface_cells.surface_channels` beside the latent, where there are any: with them it keeps 99 % of the true children in
    little more cells than there are, without them in about half as many again.

    Args:
        latent_channels: width of the latent.
        geometry_channels: width of the numbers beside it; 0 for none. They go into the transformer with the latent, and once more past it,
            since its norms and position codes would drown them.
        model_channels, num_blocks, heads, window, mlp_ratio: of the transformer; the depth is half of TRELLIS' decoder's.
        widths: of the levels above the latent's that have a predictor too, coarse → fine. One level more than widths is predicted.
        checkpoint: compute blocks again in the backward pass instead of keeping their intermediate results.
    Parameters: input_layer, blocks.{i} as `WindowTransformer`, out_norm, geometry_layer.{0, 2} with geometry, predict.{l} as
        `ChildPredictor` with its threshold,
        upsample.{l} as `OctantUpsample`.
    Raises:
        RangeError: numbers that make no network.   By `forward`: ShapeError, DtypeError, DeviceError, inputs that do not fit; RangeError,
        structures that do not fit.
    Differentiable in logits; the decision itself has no gradient. Empty samples and tensors are legal.   Batch: samples do not meet.
    Source: Sparse-Up (Xiao et al.), Mask Generator, of which the paper says that it is a transformer like the decoder; its inputs,
        widths and thresholds are proposed here.
    Example:
        >>> generator = MaskGenerator(8, model_channels=48, num_blocks=1, heads=4, widths=(16,))
        >>> z = SparseTensor(structure.parents, torch.randn(len(structure.parents), 8))
        >>> free = generator(z)
        >>> [s.children.resolution[0] // z.grid.resolution[0] for s in free.structures]
        [2, 4]
        >>> taught = generator(z, structures=free.structures)             # logits for voxgen.losses.mask_bce
    """

    def __init__(
        self,
        latent_channels: int,
        geometry_channels: int = 0,
        *,
        model_channels: int = 768,
        num_blocks: int = 6,
        heads: int = 12,
        window: int = 8,
        mlp_ratio: float = 4.0,
        widths: Sequence[int] = (192,),
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "MaskGenerator"
        self.latent_channels = require_int(where, "latent_channels", latent_channels, 1)
        self.geometry_channels = require_int(where, "geometry_channels", geometry_channels, 0)
        levels = (model_channels, *(require_int(where, f"widths[{i}]", width, 1) for i, width in enumerate(widths)))
        self.input_layer = nn.Linear(latent_channels + geometry_channels, model_channels)
        self.blocks = WindowTransformer(model_channels, num_blocks, heads, window, mlp_ratio=mlp_ratio, checkpoint=checkpoint)
        self.out_norm = LayerNorm32(model_channels)
        self.geometry_layer = (
            nn.Sequential(nn.Linear(geometry_channels, model_channels), nn.SiLU(), nn.Linear(model_channels, model_channels))
            if geometry_channels
            else None
        )
        self.predict = nn.ModuleList(ChildPredictor(width) for width in levels)
        self.upsample = nn.ModuleList(OctantUpsample(a, b, checkpoint=checkpoint) for a, b in pairwise(levels))

    @property
    def levels(self) -> int:
        """How many levels it predicts."""
        return len(self.predict)

    def forward(
        self,
        z: SparseTensor,
        geometry: Float[Tensor, "n g"] | None = None,
        *,
        structures: Sequence[Structure] | None = None,
        union: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> MaskPrediction:
        """Predict the masks of all levels.

        Args:
            z: (n cells, latent_channels).
            geometry: (n, geometry_channels), where the network has them.
            structures: the true ones, coarse → fine, for teacher forcing: logits are of the children of true cells. None: each level
                is made of what the one before keeps.
            union: with structures: the probability, for each level, that the true children and the predicted ones are kept, which the
                levels after then see (scheduled sampling; from 0 to 0.3 over a training). `mask_targets` says what is true then.
            generator: draws for `union`, on the CPU.
        """
        where = "MaskGenerator"
        require_width(where, z, self.latent_channels)
        self._check(where, z, geometry, structures, union)
        feats = z.feats if geometry is None else torch.cat((z.feats, geometry.to(z.dtype)), 1)
        h = z.with_feats(self.input_layer(feats.to(self.input_layer.weight.dtype)))
        h = self.out_norm(self.blocks(h))
        if self.geometry_layer is not None and geometry is not None:
            h = h.with_feats(h.feats + self.geometry_layer(geometry.to(self.input_layer.weight.dtype)))
        made, scores = [], []
        for level, predict in enumerate(self._predictors()):
            logits = predict(h)
            if structures is None:
                structure = Structure.of_mask(h.grid, predict.keep(logits))
            elif union > 0:
                mask = _true_children(h.grid, structures[level])
                drawn = float(torch.rand((), generator=generator)) < union
                structure = Structure.of_mask(h.grid, mask | predict.keep(logits) if drawn else mask)
            else:
                structure = structures[level]
                require_parents(where, h, structure)
            made.append(structure)
            scores.append(logits)
            if level + 1 < self.levels:
                h = self.upsample[level](h, structure)
        return MaskPrediction(tuple(made), tuple(scores))

    def calibrate(self, prediction: MaskPrediction, structures: Sequence[Structure], recall: float = 0.99) -> tuple[float, ...]:
        """Set each level's threshold by recall (`ChildPredictor.calibrate`), from a prediction on shapes not trained on.

        Args:
            prediction: of `forward` with `structures`.
            structures: the true ones.
            recall: share of the true children that each level keeps.
        """
        masks = mask_targets(prediction, structures)
        return tuple(p.calibrate(s, m, recall) for p, s, m in zip(self._predictors(), prediction.logits, masks, strict=True))

    def _predictors(self) -> list[ChildPredictor]:
        return [p for p in self.predict if isinstance(p, ChildPredictor)]

    def _check(self, where: str, z: SparseTensor, geometry: Tensor | None, structures: Sequence[Structure] | None, union: float) -> None:
        if (geometry is None) != (self.geometry_channels == 0):
            raise RangeError(
                f"{where}: geometry must be given if and only if the network has geometry_channels; it has {self.geometry_channels}."
            )
        if geometry is not None:
            require_tensor(where, "geometry", geometry, (len(z), self.geometry_channels), FLOATS, hint="One row for each cell of z.")
            require_same_device(where, z=z.feats, geometry=geometry)
        if structures is not None and len(structures) != self.levels:
            raise ShapeError(f"{where}: structures must be one for each of {self.levels} levels; got {len(structures)}.")
        if not 0 <= union <= 1 or (union > 0 and structures is None):
            raise RangeError(f"{where}: union must lie in [0, 1] and needs structures; got union={union}.")


def mask_targets(prediction: MaskPrediction, structures: Sequence[Structure]) -> tuple[Bool[Tensor, "p 8"], ...]:
    """Of each level's candidates, which are true: for `voxgen.losses.mask_bce`.

    Args:
        prediction: of `MaskGenerator`, under teacher forcing or not: cells that are not true have no true child.
        structures: the true ones, coarse → fine.
    """
    return tuple(_true_children(made.parents, true) for made, true in zip(prediction.structures, structures, strict=True))


def _true_children(parents: VoxelGrid, structure: Structure) -> Bool[Tensor, "p 8"]:
    """Which children of any cells exist in a structure; none of those of cells that are not among its parents."""
    mask = structure.mask()
    if parents is structure.parents:
        return mask
    rows = lookup_cells(structure.parents, parents.coords).long()
    if len(mask) == 0:
        return mask.new_zeros(len(rows), mask.shape[1])
    return mask.index_select(0, rows.clamp_min(0)) & (rows >= 0)[:, None]
