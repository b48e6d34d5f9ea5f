"""EarlyPruningUpsampler: predict which children exist before making features for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, describe, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.resample import Structure

from ._checks import require_channels, require_input, require_parents
from ._residual_resample import CHILDREN, ResidualUpsample


@dataclass(frozen=True)
class Upsampled:
    """What `EarlyPruningUpsampler` and `SelfPruningUpsampler` give.

    Attributes:
        x: (n cells, O) on `structure.children`.
        structure: which children there are; `structure.mask()` is it as (p, 8) booleans.
        logits: (p, 8) of each parent's children, slot = x + 2y + 4z; for the loss, or to guide another decoder.
    """

    x: SparseTensor
    structure: Structure
    logits: Float[Tensor, "p 8"]


class EarlyPruningUpsampler(nn.Module):
    """One level up that first predicts which children exist and never makes a row for one that does not.

    The prediction is one linear map of the features as they come in. `forward` is told what decides:
    - `structure=`: teacher forcing; the true structure, in training;
    - `mask=`: guided by another decoder's logits, or by booleans;
    - neither: its own prediction.

    Args:
        channels, out_channels: C, O.
        upsample: module with `forward(x, structure) -> SparseTensor` that makes the features; None is
            `ResidualUpsample(channels, out_channels)`.
        threshold: a child exists where its logit is above it. 0 is a probability of one half.
    Parameters:
        predict.weight: (8, C).   predict.bias: (8,).   upsample.*: those of the module.
    Raises:
        RangeError: a width below 1, or a threshold that is NaN; both structure and mask; a structure of other cells.
        ShapeError: as the module's widths demand; a mask that is not (p, 8).   DtypeError: a mask of neither booleans nor
        floats.   Others as `SparseConv3d`.
    Warns:
        EmptyResultWarning: there are cells, and no child of any is kept. The result is an empty tensor, on which later
        layers run.
    Differentiable in features and logits; the decision itself has no gradient. A NaN logit keeps no child.
    Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: 16C operations a parent, then those of the module for the children that are kept.
    Source: TRELLIS.2, early-pruning upsampler (`SparseResBlockC2S3d` with `pred_subdiv`); differences: the structure is an
        argument and a result. The original silently prefers a cached one to its prediction and to a guide, and fails where
        nothing is kept. Its `to_subdiv` is our `predict`.
    Example:
        >>> layer = EarlyPruningUpsampler(32, 16)
        >>> taught = layer(y, structure=structure)                        # y: 32 channels on structure.parents
        >>> loss = torch.nn.functional.binary_cross_entropy_with_logits(taught.logits, structure.mask().float())
        >>> free = layer(y)                                               # free.x on the cells that it predicts
        >>> guided = EarlyPruningUpsampler(32, 16)(y, mask=free.logits)   # the same cells
    """

    def __init__(self, channels: int, out_channels: int, upsample: nn.Module | None = None, threshold: float = 0.0) -> None:
        super().__init__()
        where = "EarlyPruningUpsampler"
        require_channels(where, channels=channels, out_channels=out_channels)
        if math.isnan(threshold):
            raise RangeError(f"{where}: threshold must be a number; got NaN.")
        self.out_channels = out_channels
        self.predict = nn.Linear(channels, CHILDREN)
        self.upsample = ResidualUpsample(channels, out_channels) if upsample is None else upsample
        self.threshold = threshold

    def forward(
        self,
        x: SparseTensor,
        *,
        structure: Structure | None = None,
        mask: Bool[Tensor, "p 8"] | Float[Tensor, "p 8"] | None = None,
    ) -> Upsampled:
        """Go up a level.

        Args:
            x: (p cells, C).
            structure: the children to make; its parents are the cells of x.
            mask: (p, 8) booleans, or floats that are kept above `threshold`, one column a child, slot = x + 2y + 4z.
        """
        where = "EarlyPruningUpsampler"
        require_input(where, x, self.predict.in_features, self.predict.weight)
        require_one_source(where, x, structure, mask)
        logits = self.predict(x.feats)
        if structure is None:
            structure = Structure.of_mask(x.grid, self._decide(where, x, logits if mask is None else mask))
        return Upsampled(self._made(where, self.upsample(x, structure), structure), structure, logits)

    def _decide(self, where: str, x: SparseTensor, mask: Tensor) -> Tensor:
        require_child_mask(where, x, mask)
        return mask if mask.dtype == torch.bool else mask > self.threshold

    def _made(self, where: str, y: SparseTensor, structure: Structure) -> SparseTensor:
        """The result of a module that may be the user's own, if it is what it should be."""
        if not isinstance(y, SparseTensor) or len(y) != len(structure.children) or y.channels != self.out_channels:
            shown = tuple(y.feats.shape) if isinstance(y, SparseTensor) else describe(y)
            raise ShapeError(
                f"{where}: upsample must give a SparseTensor of {self.out_channels} channels on the "
                f"{len(structure.children)} cells of structure.children; it gave {shown}."
            )
        return y


def require_one_source(where: str, x: SparseTensor, structure: Structure | None, mask: Tensor | None) -> None:
    """Raise if both a structure and a mask say which children exist, or a structure is of other cells."""
    if structure is not None and mask is not None:
        raise RangeError(f"{where}: structure and mask both say which children exist; give at most one of them.")
    if structure is not None:
        require_parents(where, x, structure)


def require_child_mask(where: str, x: SparseTensor, mask: Tensor) -> None:
    """Raise unless it is (p, 8) booleans or floats, for the p cells of x."""
    require_tensor(where, "mask", mask, (len(x), CHILDREN), (torch.bool, *FLOATS), hint="One row a cell of x, one column a child.")
    require_same_device(where, x=x.feats, mask=mask)
