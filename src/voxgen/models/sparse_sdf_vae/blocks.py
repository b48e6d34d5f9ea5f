"""The blocks between two levels: group norm, pooling and convolution on the way down, convolution and repetition on the way up."""

from __future__ import annotations

from typing import get_args

from torch import nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.layers import SparseConv3d, SparseGroupNorm
from voxgen.ops.conv import sparse_conv_subdivided
from voxgen.ops.resample import Pooling, Structure, pool

__all__ = ["SDFDownBlock", "SDFUpBlock"]


class SDFDownBlock(nn.Module):
    """One level down: y = conv2(SiLU(norm2(conv1(pool(SiLU(norm1(x))))))) + skip(pool(x)).

    Args:
        channels, out_channels: C, O.
        num_groups: of the norms; divides C and O.
        pooling: see `voxgen.ops.resample.pool`; the released weights want "mean_plus_one".
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, O).   conv1.bias: (O,).   norm2.weight, norm2.bias: (O,).
        conv2.weight: (27, O, O).   conv2.bias: (O,).   skip_connection.weight: (C, O).   skip_connection.bias: (O,); the last
        two only where O is not C. Convolutions uniform at first, as `SparseConv3d`.
    Raises:
        RangeError: a width below 1, or an unknown pooling.   ShapeError: groups that do not divide.   By `forward`: as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: statistics are of each sample; samples do not meet.
    Source: Direct3D-S2, down block of its SDF encoder; differences: a sample whose group has one value gives the norm's bias, where
        the original fails.
    Numerics: in the dtype of the weights; norms and sums of pooling in float32.
    Example:
        >>> y, structure = SDFDownBlock(16, 32, num_groups=8)(x)          # x: SparseTensor of 16 channels
    """

    def __init__(self, channels: int, out_channels: int, *, num_groups: int = 32, pooling: Pooling = "mean") -> None:
        super().__init__()
        require_choice("SDFDownBlock", "pooling", pooling, get_args(Pooling))
        self.norm1 = SparseGroupNorm(num_groups, channels)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = SparseGroupNorm(num_groups, out_channels)
        self.conv2 = SparseConv3d(out_channels, out_channels)
        self.skip_connection = nn.Identity() if channels == out_channels else SparseConv3d(channels, out_channels, kernel_size=1)
        self.pooling: Pooling = pooling

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, Structure]:
        """Features on the parents of x's cells, and the structure that joins the levels."""
        structure = Structure.of_children(x.grid)
        coarse = SparseTensor(structure.parents, pool(F.silu(self.norm1(x).feats), structure, self.pooling))
        h = self.norm2(self.conv1(coarse))
        h = self.conv2(h.with_feats(F.silu(h.feats)))
        shortcut = self.skip_connection(h.with_feats(pool(x.feats, structure, self.pooling)))
        return h.with_feats(h.feats + shortcut.feats), structure


class SDFUpBlock(nn.Module):
    """One level up: y = SiLU(conv2(subdivide(SiLU(conv1(x))))). No norm, no shortcut.

    Fits `EarlyPruningUpsampler(upsample=...)`.

    Args:
        channels, out_channels: C, O.
    Parameters:
        conv1.weight: (27, C, O).   conv1.bias: (O,).   conv2.weight: (27, O, O).   conv2.bias: (O,); as `SparseConv3d` at first.
    Raises:
        RangeError: a width below 1; by `forward`, a structure of other cells.   Others as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Source: Direct3D-S2, up block of its SDF decoder; differences: the structure is an argument; children that it leaves out count as
        zeros in the second convolution.
    Cost: up to 54 C · O operations a cell and 128 O² for all its children; where some are left out 54 O² a child.
    Numerics: in the dtype of the weights; see `sparse_conv_subdivided`.
    Example:
        >>> structure = Structure.of_mask(x.grid)                         # all children
        >>> len(SDFUpBlock(16, 8)(x, structure)) == 8 * len(x)            # x: SparseTensor of 16 channels
        True
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = SparseConv3d(channels, out_channels)
        self.conv2 = SparseConv3d(out_channels, out_channels)

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        """Features on `structure.children`, whose parents are the cells of x."""
        if not structure.parents.same_cells(x.grid):
            raise RangeError(f"SDFUpBlock: structure.parents must be the cells of x; got {structure.parents!r} and {x.grid!r}.")
        h = F.silu(self.conv1(x).feats)
        h = sparse_conv_subdivided(h, self.conv2.weight, self.conv2.bias, structure, backend=self.conv2.backend)
        return SparseTensor(structure.children, F.silu(h))
