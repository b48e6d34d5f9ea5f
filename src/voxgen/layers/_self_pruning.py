"""SelfPruningUpsampler: make all children, judge each by its features, drop those that are empty."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.ops.resample import Structure

from . import _checkpoint
from ._checks import require_channels, require_input
from ._pooled_resample import NearestUpsample
from ._pruning_upsampler import Upsampled, require_child_mask, require_one_source
from ._residual_resample import CHILDREN

__all__ = ["SelfPruningUpsampler"]

HEAD_RATIO = 4
"""Hidden width of the pruning head over the features it reads."""

ROWS, DEVICE_ROWS = 1 << 13, 1 << 17
"""Children that the pruning head judges at a time, on a CPU and elsewhere; its hidden features are wide."""


class SelfPruningUpsampler(nn.Module):
    """One level up that makes all eight children of every cell, judges each by its own features, and drops the empty ones.

    The features are those of `NearestUpsample`: h = conv2(SiLU(norm2(conv1(subdivide(SiLU(norm1(x))))))) + subdivide(skip(x)). A
    child's logit is an MLP of its features. `forward` is told what decides which children stay:
    - `structure=`: teacher forcing; the true structure, in training;
    - `mask=`: guided by another decoder's logits, or by booleans;
    - `prune=False`: nothing, all stay, as the original trains; the logits are for the loss;
    - none of them: its own logits.

    Where `EarlyPruningUpsampler` decides before it makes features, this one decides after, on what the children have become:
    dearer, and a decision that can see the children's surroundings.

    Args:
        channels, out_channels: C, O.
        norm: "group": over the cells of the sample (the original's; every child depends on which others there are, so compare only
            runs on the same cells); "per_voxel": over the channels of each cell, same parameters, so that crops, tiles and
            carved grids give the numbers of the whole.
        num_groups: of "group" norms; must divide C and O.
        threshold: a child stays where its logit is at least this. 0 is a probability of one half.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        upsample.norm1.{weight, bias}: (C,).   upsample.conv1.weight: (27, C, O).   upsample.conv1.bias: (O,).
        upsample.norm2.{weight, bias}: (O,).   upsample.conv2.weight: (27, O, O).   upsample.conv2.bias: (O,); both zero at first.
        upsample.skip_connection.weight: (O, C).   upsample.skip_connection.bias: (O,); only where O is not C.
        predict.0.{weight (4O, O), bias}.   predict.2.{weight (1, 4O), bias}; the last two zero at first, so that a new one
        keeps every child.
    Raises:
        RangeError: a width below 1, a threshold that is NaN, an unknown norm; both structure and mask; a structure of other cells.
        ShapeError: groups that do not divide; a mask that is not (p, 8).   DtypeError: a mask of neither booleans nor floats.
        Others as `SparseConv3d`.
    Warns:
        EmptyResultWarning: there are cells, and no child of any stays. The result is an empty tensor, on which later layers run.
    Differentiable in features and logits; the decision itself has no gradient. A NaN logit keeps no child.
    Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: for each of the eight children of every cell 16CO + 2O² · pairs (about 19 of 27) + 8O² operations. The first convolution
        and the shortcut go over parents (`sparse_conv_subdivided`).
    Memory: without gradients five rows of O for every child at the most; hidden features of the head for 8,192 children at a time (131,072
        on a GPU).
    Source: TripoSF's decoder block (`SparseSubdivideBlock3d` with its pruning head), Focusing's self-pruning upsampling; differences:
        who decides is an argument, not the mode of the module; per-voxel norms; nothing fails where no child stays.
    Example:
        >>> layer = SelfPruningUpsampler(32, 16, num_groups=8)
        >>> taught = layer(y, structure=structure)                        # y: 32 channels on structure.parents
        >>> loss = torch.nn.functional.binary_cross_entropy_with_logits(taught.logits, structure.mask().float())
        >>> len(layer(y, prune=False).x) == 8 * len(y)                    # all children, and the logits of all
        True
        >>> free = layer(y)                                               # free.x on the children that it keeps
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        norm: Literal["group", "per_voxel"] = "group",
        num_groups: int = 32,
        threshold: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "SelfPruningUpsampler"
        require_channels(where, channels=channels, out_channels=out_channels)
        require_choice(where, "norm", norm, ("group", "per_voxel"))
        if math.isnan(threshold):
            raise RangeError(f"{where}: threshold must be a number; got NaN.")
        self.upsample = NearestUpsample(channels, out_channels, norm=norm, num_groups=num_groups)
        hidden = HEAD_RATIO * out_channels
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.predict = nn.Sequential(nn.Linear(out_channels, hidden), nn.GELU(approximate="tanh"), last)
        self.threshold = threshold
        self.checkpoint = checkpoint

    def forward(
        self,
        x: SparseTensor,
        *,
        structure: Structure | None = None,
        mask: Bool[Tensor, "p 8"] | Float[Tensor, "p 8"] | None = None,
        prune: bool = True,
    ) -> Upsampled:
        """Go up a level.

        Args:
            x: (p cells, C).
            structure: the children that stay; its parents are the cells of x.
            mask: (p, 8) booleans, or floats that stay from `threshold` on, one column a child, slot = x + 2y + 4z.
            prune: whether its own logits decide where neither structure nor mask does.
        """
        where = "SelfPruningUpsampler"
        conv = self.upsample.conv1
        require_input(where, x, conv.in_channels, conv.weight)
        require_one_source(where, x, structure, mask)
        if mask is not None:
            require_child_mask(where, x, mask)
        every = Structure.of_mask(x.grid) if structure is None or len(structure.children) != CHILDREN * len(x) else structure
        made = _checkpoint.run(self.checkpoint, self.upsample, x, every)
        logits = self._score(made.feats).index_select(0, every.table.flatten()).view(len(x), CHILDREN)
        made = Upsampled(made, every, logits)
        if structure is None:
            if mask is None and not prune:
                return made
            scores = logits.detach() if mask is None else mask
            structure = Structure.of_mask(x.grid, scores if scores.dtype == torch.bool else scores >= self.threshold)
        return keep_children(made, structure)

    def _score(self, feats: Tensor) -> Tensor:
        """(n, O) → (n,) logits."""
        rows = ROWS if feats.device.type == "cpu" else DEVICE_ROWS
        return torch.cat([_checkpoint.run(self.checkpoint, self.predict, part) for part in feats.split(rows)])[:, 0]


def keep_children(every: Upsampled, structure: Structure) -> Upsampled:
    """Of all children of every cell those that a structure on the same cells has."""
    feats = every.x.feats
    if len(structure.children) < len(feats):
        rows = every.structure.table.flatten().index_select(0, structure.parent * CHILDREN + structure.slot)
        feats = feats.index_select(0, rows)
    return Upsampled(SparseTensor(structure.children, feats), structure, every.logits)
