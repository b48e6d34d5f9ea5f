"""The plain residual block."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor

from . import _checkpoint
from ._checks import require_channels, require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._sums import activate, add


class SparseResidualBlock(nn.Module):
    """skip(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x)))))): two convolutions on one level.

    Args:
        channels: C.
        out_channels: O; None keeps C.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, O).   conv1.bias: (O,).
        conv2.weight: (27, O, O).   conv2.bias: (O,); both zero at first.
        skip_connection.weight: (O, C).   skip_connection.bias: (O,); only where O is not C.
    Takes (n cells, C), returns (n cells, O) on the same grid. Differentiable. Empty tensors and samples are legal.
    Raises:
        RangeError: channels below 1. By `forward`, as `SparseConv3d`.
    Cost: 2O(C + O) · pairs operations a cell, with about 13 pairs near a surface.
    Source: `SparseResBlock3d` of TRELLIS.2 without resampling; differences: none.
    Numerics: in the dtype of the weights; norms in float32.
    Example:
        >>> y = SparseResidualBlock(16, 24)(x)                            # x: SparseTensor of 16 channels
    """

    def __init__(self, channels: int, out_channels: int | None = None, checkpoint: bool = False) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        require_channels("SparseResidualBlock", channels=channels, out_channels=width)
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, width)
        self.norm2 = LayerNorm32(width, affine=False)
        self.conv2 = zeroed(SparseConv3d(width, width))
        self.skip_connection = skip(channels, width)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The block on x."""
        require_input("SparseResidualBlock", x, self.conv1.in_channels, self.conv1.weight)
        return _checkpoint.run(self.checkpoint, self._forward, x)

    def _forward(self, x: SparseTensor) -> SparseTensor:
        h = self.conv1(x.with_feats(activate(self.norm1, x.feats)))
        h = h.with_feats(activate(self.norm2, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        return h.with_feats(add(h.feats, self.skip_connection(x.feats)))


def skip(channels: int, out_channels: int) -> nn.Module:
    """What a shortcut does with the width: nothing where it stays, else a linear map."""
    return nn.Identity() if channels == out_channels else nn.Linear(channels, out_channels)


def zeroed(conv: SparseConv3d) -> SparseConv3d:
    """The convolution with all parameters zero, so that a residual block begins as its shortcut."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
