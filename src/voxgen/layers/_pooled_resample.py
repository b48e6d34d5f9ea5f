"""The pooled pair: the level changes by pooling and by nearest neighbours."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import require_choice
from voxgen.ops.conv import sparse_conv_subdivided
from voxgen.ops.resample import Pooling, Structure, pool, subdivide

from . import _checkpoint
from ._checks import require_channels, require_input, require_parents, structure_below
from ._conv import SparseConv3d
from ._norm import LayerNorm32, SparseGroupNorm
from ._residual import skip, zeroed
from ._sums import activate, add

UpsampleNorm = Literal["layer", "group", "per_voxel"]
"""Norms of `NearestUpsample`.

"layer": over the channels of each cell, the second without gain and shift, eps 1e-6 (TRELLIS.2). "group": over the cells of the
sample and a group of channels, eps 1e-5 (TRELLIS, TripoSF), so that each cell depends on which others there are. "per_voxel": in
place of "group" and with its parameters, over the channels of each cell, eps 1e-5, so that a crop gives the numbers of the whole.
"""


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
        norm: see `UpsampleNorm`.
        num_groups: of "group" norms; must divide C and O.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters: as `PooledDownsample`; with "group" and "per_voxel" also norm2.weight, norm2.bias: (O,).
    Raises: as `PooledDownsample`; ShapeError for groups that do not divide.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: 2O(C + O) · pairs operations a child; where every cell has all its children, 16CO a child for the first convolution, and
        no row of C is made for a child.
    Source: `SparseResBlockUpsample3d` of TRELLIS.2 without its prediction, upsampling block of TRELLIS' mesh decoder and of TripoSF
        ("group"); differences: the structure is an argument; the linear map of the shortcut goes over parents, whose children
        share its result, and so does the first convolution (`sparse_conv_subdivided`).
    Numerics: in the dtype of the weights; norms in float32.
    Example:
        >>> y, structure = PooledDownsample(16, 32)(x)                    # x: SparseTensor of 16 channels
        >>> NearestUpsample(32, 16)(y, structure).grid is x.grid
        True
    """

    def __init__(
        self, channels: int, out_channels: int, *, norm: UpsampleNorm = "layer", num_groups: int = 32, checkpoint: bool = False
    ) -> None:
        super().__init__()
        require_channels("NearestUpsample", channels=channels, out_channels=out_channels)
        require_choice("NearestUpsample", "norm", norm, get_args(UpsampleNorm))
        self.norm1 = _norm(norm, channels, num_groups)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = _norm(norm, out_channels, num_groups, affine=norm != "layer")
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
        conv = self.conv1
        feats = sparse_conv_subdivided(_activate(self.norm1, x).feats, conv.weight, conv.bias, structure, backend=conv.backend)
        h = SparseTensor(structure.children, feats)
        del feats  # not held any longer than the next lines need it
        h = _activate(self.norm2, h)
        h = self.conv2(h)
        return h.with_feats(add(h.feats, subdivide(self.skip_connection(x.feats), structure)))


def _norm(kind: UpsampleNorm, channels: int, num_groups: int, affine: bool = True) -> LayerNorm32 | SparseGroupNorm:
    if kind == "group":
        return SparseGroupNorm(num_groups, channels)
    return LayerNorm32(channels, affine) if kind == "layer" else LayerNorm32(channels, eps=1e-5)


def _activate(norm: nn.Module, x: SparseTensor) -> SparseTensor:
    """SiLU of the normalised features, whose memory is the norm's own."""
    h = norm(x)
    return h.with_feats(F.silu(h.feats, inplace=not torch.is_grad_enabled()))
