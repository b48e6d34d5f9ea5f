"""The ConvNeXt-style block of TRELLIS.2's SC-VAE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.aliases import Int3
from voxgen.core.errors import RangeError

from . import _checkpoint
from ._checks import require_channels, require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32

_ROWS = 2048
"""Rows of a piece: many enough for matrix products, few enough for a cache."""


class SparseConvNeXtBlock(nn.Module):
    """x + mlp(norm(conv(x))): one convolution for the neighbourhood, an inverted bottleneck for the channels.

    Args:
        channels: C, in and out.
        mlp_ratio: the hidden width is int(C · mlp_ratio).
        kernel_size: odd, one number or three.
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        conv.weight: (K, C, C).   conv.bias: (C,).   norm.weight, norm.bias: (C,).
        mlp.0.weight: (hidden, C).   mlp.0.bias: (hidden,).   mlp.2.weight: (C, hidden).   mlp.2.bias: (C,).
        mlp.2 is zero at first, so that a new block is the identity.
    Takes (n cells, C), returns (n cells, C) on the same grid. Differentiable. Empty tensors and samples are legal.
    Raises:
        RangeError: channels below 1, or a ratio that leaves no hidden channel; as `SparseConv3d` for kernel_size and in `forward`.
    Cost: 2C² · (pairs + 2 · mlp_ratio) operations a cell, with about 13 pairs near a surface. Without gradients, on a CPU, the MLP
        takes some rows at a time: the hidden features never exist as a whole (hooks on `mlp` see the pieces).
    Source: `SparseConvNeXtBlock3d` of TRELLIS.2; differences: none. (Its networks draw mlp.2 anew after the blocks are
        made: see `voxgen.models`.)
    Numerics: in the dtype of the weights; the norm in float32.
    Example:
        >>> y = SparseConvNeXtBlock(64)(x)                                # x: SparseTensor of 64 channels
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0, kernel_size: int | Int3 = 3, checkpoint: bool = False) -> None:
        super().__init__()
        where = "SparseConvNeXtBlock"
        require_channels(where, channels=channels)
        hidden = int(channels * mlp_ratio) if math.isfinite(mlp_ratio) else 0
        if hidden < 1:
            raise RangeError(f"{where}: mlp_ratio must give at least one hidden channel; got {mlp_ratio} with {channels} channels.")
        self.conv = SparseConv3d(channels, channels, kernel_size)
        self.norm = LayerNorm32(channels)
        last = nn.Linear(hidden, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), last)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The block on x."""
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
