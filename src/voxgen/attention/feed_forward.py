"""The feed-forward half of a transformer block."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int

__all__ = ["FeedForward"]

T = TypeVar("T", Tensor, SparseTensor)


class FeedForward(nn.Module):
    """Linear, GELU (tanh form), Linear, on each token.

    Args:
        channels: width of a token.
        ratio: width of the hidden layer over channels; the width is int(ratio · channels).
    Parameters: `mlp.0.{weight (hidden, channels), bias}`, `mlp.2.{weight (channels, hidden), bias}`.
    Shape: (..., channels) → the same, or a SparseTensor → a SparseTensor on the same grid.
    Raises:
        RangeError: a hidden width below 1.
    Source: TRELLIS, TRELLIS.2 and Direct3D-S2; differences: none.
    Example:
        >>> FeedForward(32)(torch.zeros(2, 5, 32)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(self, channels: int, ratio: float = 4.0) -> None:
        super().__init__()
        require_int("FeedForward", "channels", channels, 1)
        hidden = require_int("FeedForward", "int(ratio * channels)", int(ratio * channels), 1)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels))

    def forward(self, x: T) -> T:
        if isinstance(x, SparseTensor):
            return x.with_feats(self.mlp(x.feats))
        return self.mlp(x)
