"""The ConvNeXt-style block of TRELLIS.2's SC-VAE."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.aliases import Int3

from . import _checkpoint
from ._checks import require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32


class SparseConvNeXtBlock(nn.Module):
    def __init__(self, channels: int, mlp_ratio: float = 4.0, kernel_size: int | Int3 = 3, checkpoint: bool = False) -> None:
        super().__init__()
        self.conv = SparseConv3d(channels, channels, kernel_size)
        self.norm = LayerNorm32(channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels))
        self.checkpoint = checkpoint
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.zeros_(self.mlp[2].bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_input("SparseConvNeXtBlock", x, self.conv.in_channels, self.conv.weight)
        return _checkpoint.run(self.checkpoint, self._forward, x)

    def _forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(x.feats + self.mlp(self.norm(self.conv(x).feats)))
