"""The plain residual block."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor

from . import _checkpoint
from ._checks import require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._sums import activate, add


class SparseResidualBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int | None = None, checkpoint: bool = False) -> None:
        super().__init__()
        width = channels if out_channels is None else out_channels
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, width)
        self.norm2 = LayerNorm32(width, affine=False)
        self.conv2 = zeroed(SparseConv3d(width, width))
        self.skip_connection = skip(channels, width)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_input("SparseResidualBlock", x, self.conv1.in_channels, self.conv1.weight)
        return _checkpoint.run(self.checkpoint, self._forward, x)

    def _forward(self, x: SparseTensor) -> SparseTensor:
        h = self.conv1(x.with_feats(activate(self.norm1, x.feats)))
        h = self.conv2(h.with_feats(activate(self.norm2, h.feats)))
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
