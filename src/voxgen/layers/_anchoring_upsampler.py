"""SurfaceAnchoringUpsampler: a learned mask keeps the children that the surface touches, before any layer runs on them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.resample import Structure, subdivide

from . import _checkpoint
from ._checks import require_channels, require_input, require_parents
from ._child_predictor import ChildPredictor
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._pruning_upsampler import Upsampled
from ._residual import skip, zeroed
from ._residual_resample import CHILDREN
from ._sums import activate, add

MaskSource = Literal["gt", "predicted", "all"]
"""What decides which children are kept: the true structure, the layer's own prediction, or nothing, so that all are."""


class OctantUpsample(nn.Module):
    """Features for the children that exist: a copy of the parent's and a learned code of the octant, then two convolutions.

    h = x[parent] + position[octant]; y = conv2(SiLU(norm(conv1(h)))) + skip(h).

    Without the code the children of a parent would be alike before they are mixed. The alternative to `ResidualUpsample` and
    `NearestUpsample`, with the same `forward`.

    Args:
        channels, out_channels: C, O.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        position: (8, C), row = x + 2y + 4z; standard normal times 0.02 at first.
        conv1.weight: (27, C, O).   conv1.bias: (O,).   norm.weight, norm.bias: (O,).
        conv2.weight: (27, O, O).   conv2.bias: (O,); both zero at first, so that a new block is its shortcut.
        skip_connection.weight: (O, C).   skip_connection.bias: (O,); only where O is not C.
    Raises:
        RangeError: a width below 1; by `forward`, a structure of other cells.   Others as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: 2O(C + O) · pairs operations a child that exists; children that do not exist cost nothing.
    Source: proposed for Sparse-Up, whose paper states no block; TRELLIS' mesh decoder has convolutions over all eight children.
    Numerics: in the dtype of the weights; norm in float32.
    Example:
        >>> OctantUpsample(32, 16)(y, structure).grid is structure.children                     # y: on structure.parents
        True
    """

    def __init__(self, channels: int, out_channels: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        require_channels("OctantUpsample", channels=channels, out_channels=out_channels)
        self.position = nn.Parameter(0.02 * torch.randn(CHILDREN, channels))
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm = LayerNorm32(out_channels)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        """Go up a level; arguments and result as `ResidualUpsample.forward`."""
        where = "OctantUpsample"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        require_parents(where, x, structure)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure)

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        code = self.position.to(x.dtype).index_select(0, structure.slot)
        own = SparseTensor(structure.children, add(subdivide(x.feats, structure), code))
        del code
        h = self.conv1(own)
        h = h.with_feats(activate(self.norm, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        return h.with_feats(add(h.feats, self.skip_connection(own.feats)))


class SurfaceAnchoringUpsampler(nn.Module):
    """One level up onto the cells that the surface touches: predict a mask, prune, and only then make features.

    `forward` is told what decides (`MaskSource`): `structure=`, the true cells, in training, or where a mesh is given; `mask=`,
    another network's logits or booleans (`voxgen.attention.MaskGenerator`); neither, its own prediction. Half of all children of
    a surface's cells are redundant at each level, so pruning first halves the memory and work of all that follows.

    The two halves can be used alone: `ChildPredictor` and `OctantUpsample`. Stands in front of any decoder.

    Args:
        channels, out_channels: C, O.
        hidden: width of the predictor; None takes C.
        upsample: module with `forward(x, structure) -> SparseTensor` that makes the features; None is
            `OctantUpsample(channels, out_channels)`.
    Parameters: predict.*, as `ChildPredictor`, its threshold among them as a buffer; upsample.*: those of the module.
    Raises:
        RangeError: a width below 1; structure and mask both; a source that does not fit them; a structure of other cells.
        ShapeError, DtypeError: a mask that is not (p, 8) booleans or floats.   Others as `SparseConv3d`.
    Differentiable in features and logits; the decision itself has no gradient. Empty tensors and samples are legal.
        Batch: samples do not meet.
    Source: Sparse-Up, surface-anchoring upsampling; differences: the paper states no layers. Of each cell the child with the
        largest logit is kept whatever its value, since every true cell has one; the threshold is stored with the weights.
    Example:
        >>> layer = SurfaceAnchoringUpsampler(32, 16)
        >>> taught = layer(y, structure=structure)                        # y: 32 channels on structure.parents
        >>> loss = torch.nn.functional.binary_cross_entropy_with_logits(taught.logits, structure.mask().float())
        >>> len(layer(y, source="all").x) == 8 * len(y)
        True
        >>> len(layer(y).x) >= len(y)                                     # its own prediction keeps a child of every cell
        True
    """

    def __init__(self, channels: int, out_channels: int, *, hidden: int | None = None, upsample: nn.Module | None = None) -> None:
        super().__init__()
        require_channels("SurfaceAnchoringUpsampler", channels=channels, out_channels=out_channels)
        self.out_channels = out_channels
        self.predict = ChildPredictor(channels, hidden)
        self.upsample = OctantUpsample(channels, out_channels) if upsample is None else upsample

    def forward(
        self,
        x: SparseTensor,
        *,
        structure: Structure | None = None,
        mask: Bool[Tensor, "p 8"] | Float[Tensor, "p 8"] | None = None,
        source: MaskSource | None = None,
        union: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Upsampled:
        """Go up a level.

        Args:
            x: (p cells, C).
            structure: the true children; its parents are the cells of x.
            mask: (p, 8) booleans, or logits that are kept as the layer keeps its own; one column a child, slot = x + 2y + 4z.
            source: says what decides, and raises where it is not there. None: the structure or mask that is given, else the
                layer's prediction.
            union: with a structure: the probability that this call keeps the true children and the predicted ones (scheduled
                sampling; never the predicted alone, whose holes would starve what follows). From 0 to 0.3 over a training.
            generator: draws for `union`, on the CPU.
        Returns:
            `Upsampled` with the logits of all children of x, also where something else decided.
        """
        where = "SurfaceAnchoringUpsampler"
        require_input(where, x, self.predict.channels, self.predict.logits.weight)
        chosen = self._source(where, structure, mask, source)
        if not 0 <= union <= 1 or (union > 0 and structure is None):
            raise RangeError(f"{where}: union must lie in [0, 1] and needs a structure; got union={union}, structure={structure}.")
        if structure is not None:
            require_parents(where, x, structure)
        if mask is not None:
            require_tensor(where, "mask", mask, (len(x), CHILDREN), (torch.bool, *FLOATS), hint="One row a cell of x, one column a child.")
            require_same_device(where, x=x.feats, mask=mask)
        logits = self.predict(x)
        if structure is not None:
            if union > 0 and float(torch.rand((), generator=generator)) < union:
                structure = Structure.of_mask(x.grid, structure.mask() | self.predict.keep(logits))
        elif chosen == "all":
            structure = Structure.of_mask(x.grid)
        else:
            decided = logits if mask is None else mask
            structure = Structure.of_mask(x.grid, decided if decided.dtype == torch.bool else self.predict.keep(decided))
        return Upsampled(self.upsample(x, structure), structure, logits)

    @staticmethod
    def _source(where: str, structure: Structure | None, mask: Tensor | None, source: MaskSource | None) -> MaskSource:
        if structure is not None and mask is not None:
            raise RangeError(f"{where}: structure and mask both say which children exist; give at most one of them.")
        if source is None:
            return "predicted" if structure is None else "gt"
        require_choice(where, "source", source, get_args(MaskSource))
        if (source == "gt") != (structure is not None) or (mask is not None and source != "predicted"):
            given = "a structure" if structure is not None else "a mask" if mask is not None else "neither structure nor mask"
            raise RangeError(f"{where}: 'gt' needs a structure, 'predicted' and 'all' have none; got {source!r} with {given}.")
        return source
