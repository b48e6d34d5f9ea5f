"""The ConvNeXt-style block of TRELLIS.2's SC-VAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.aliases import Int3

from . import _checkpoint
from ._checks import require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32

_ROWS = 2048
"""Rows of a piece: many enough for matrix products, few enough for a cache."""


class SparseConvNeXtBlock(nn.Module):
    def __init__(self, channels: int, mlp_ratio: float = 4.0, kernel_size: int | Int3 = 3, checkpoint: bool = False) -> None:
        super().__init__()
        self.conv = SparseConv3d(channels, channels, kernel_size)
        self.norm = LayerNorm32(channels)
        hidden = int(channels * mlp_ratio)
        last = nn.Linear(hidden, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), last)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_input("SparseConvNeXtBlock", x, self.conv.in_channels, self.conv.weight)
        return _checkpoint.run(self.checkpoint, self._forward, x)

    def _forward(self, x: SparseTensor) -> SparseTensor:
        h = self.conv(x).feats
        if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) <= _ROWS:
            return x.with_feats(x.feats + self.mlp(self.norm(h)))
        return x.with_feats(self._in_pieces(x.feats, h))

    def _in_pieces(self, feats: Tensor, h: Tensor) -> Tensor:
        """The same, some rows at a time: the wide hidden features stay in the processor's cache and take no memory."""
        result = torch.zeros_like(feats)
        for own, rows, out in zip(feats.split(_ROWS), h.split(_ROWS), result.split(_ROWS), strict=True):
            torch.add(own, self.mlp(self.norm(rows)), out=out)
        return result
