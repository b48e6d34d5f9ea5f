"""The pooled pair: the level changes by pooling and by nearest neighbours."""

from __future__ import annotations

from typing import get_args

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_choice
from voxgen.ops.resample import Pooling, Structure, pool, subdivide

from . import _checkpoint
from ._checks import require_channels, require_input, require_parents, structure_below
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._residual import skip, zeroed
from ._sums import activate, add


class PooledDownsample(nn.Module):
    """One level down by pooling: y = conv2(SiLU(norm2(conv1(pool(SiLU(norm1(x))))))) + skip(pool(x)).

    The alternative to `ResidualDownsample`, with the same `forward`.

    Args:
        channels, out_channels: C, O.
        pooling: "mean" over the children that exist, "mean_plus_one", "sum" or "max"; see `voxgen.ops.resample.pool`.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, O).   conv1.bias: (O,).
        conv2.weight: (27, O, O).   conv2.bias: (O,); both zero at first.
        skip_connection.weight: (O, C).   skip_connection.bias: (O,); only where O is not C.
    Raises:
        RangeError: a width below 1, or an unknown pooling. By `forward`: RangeError for a structure of other cells; others
        as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: 2O(C + O) · pairs operations a parent.
    Source: `SparseResBlockDownsample3d` of TRELLIS.2; differences: the structure is returned, not hidden in a cache.
    Numerics: in the dtype of the weights; norms and sums of pooling in float32.
    Example:
        >>> y, structure = PooledDownsample(16, 32)(x)                    # x: SparseTensor of 16 channels
    """

    def __init__(self, channels: int, out_channels: int, pooling: Pooling = "mean", *, checkpoint: bool = False) -> None:
        super().__init__()
        where = "PooledDownsample"
        require_channels(where, channels=channels, out_channels=out_channels)
        require_choice(where, "pooling", pooling, get_args(Pooling))
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.pooling: Pooling = pooling
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure | None = None) -> tuple[SparseTensor, Structure]:
        """Go down a level; arguments and result as `ResidualDownsample.forward`."""
        where = "PooledDownsample"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        structure = structure_below(where, x, structure)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure), structure

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = self.conv1(SparseTensor(structure.parents, pool(activate(self.norm1, x.feats), structure, self.pooling)))
        h = h.with_feats(activate(self.norm2, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        return h.with_feats(add(h.feats, self.skip_connection(pool(x.feats, structure, self.pooling))))


class NearestUpsample(nn.Module):
    """One level up by repetition: y = conv2(SiLU(norm2(conv1(subdivide(SiLU(norm1(x))))))) + subdivide(skip(x)).

    The alternative to `ResidualUpsample`, with the same `forward`; also for `EarlyPruningUpsampler(upsample=...)`.

    Args:
        channels, out_channels: C, O.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters: as `PooledDownsample`.
    Raises: as `PooledDownsample`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: 2O(C + O) · pairs operations a child.
    Source: `SparseResBlockUpsample3d` of TRELLIS.2 without its prediction; differences: the structure is an argument; the
        linear map of the shortcut goes over parents, whose children share its result.
    Numerics: in the dtype of the weights; norms in float32.
    Example:
        >>> y, structure = PooledDownsample(16, 32)(x)                    # x: SparseTensor of 16 channels
        >>> NearestUpsample(32, 16)(y, structure).grid is x.grid
        True
    """

    def __init__(self, channels: int, out_channels: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        require_channels("NearestUpsample", channels=channels, out_channels=out_channels)
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        """Go up a level; arguments and result as `ResidualUpsample.forward`."""
        where = "NearestUpsample"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        require_parents(where, x, structure)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure)

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = self.conv1(SparseTensor(structure.children, subdivide(activate(self.norm1, x.feats), structure)))
        h = h.with_feats(activate(self.norm2, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        return h.with_feats(add(h.feats, subdivide(self.skip_connection(x.feats), structure)))
