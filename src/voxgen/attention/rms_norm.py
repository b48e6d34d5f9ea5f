"""Norm of queries and keys."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.checks import require_int
from voxgen.core.errors import ShapeError

__all__ = ["MultiHeadRMSNorm"]

SMALLEST_NORM = 1e-12


class MultiHeadRMSNorm(nn.Module):
    """Scale the channels of each head to unit root mean square, times a learned gain a head and channel.

    Keeps attention logits bounded, so that deep transformers train in half precision.

    Args:
        head_channels: width d of a head.
        heads: number h of heads.
    Parameters: `gamma` (heads, head_channels), starts at 1.
    Shape: (..., h, d) floats → the same: x / max(|x|, 1e-12) · √d · gamma.
    Raises:
        ShapeError: the last two axes are not (heads, head_channels).
    Source: the q/k norm of TRELLIS, TRELLIS.2 and Direct3D-S2; differences: none.
    Numerics: in float32, or float64 for float64, rounded once.
    Example:
        >>> MultiHeadRMSNorm(2, 1)(torch.tensor([[[5.0, -5.0]]])).round().flatten().tolist()
        [1.0, -1.0]
    """

    def __init__(self, head_channels: int, heads: int) -> None:
        super().__init__()
        require_int("MultiHeadRMSNorm", "head_channels", head_channels, 1)
        require_int("MultiHeadRMSNorm", "heads", heads, 1)
        self.gamma = nn.Parameter(torch.ones(heads, head_channels))

    def forward(self, x: Float[Tensor, "... h d"]) -> Float[Tensor, "... h d"]:
        if x.shape[-2:] != self.gamma.shape:
            raise ShapeError(f"MultiHeadRMSNorm: the last two axes must be {tuple(self.gamma.shape)}; got {tuple(x.shape)}.")
        wide = torch.promote_types(x.dtype, torch.float32)
        unit = F.normalize(x.to(wide), dim=-1, eps=SMALLEST_NORM)
        return (unit * (self.gamma.to(wide) * math.sqrt(x.shape[-1]))).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.gamma.shape[1]}, heads={self.gamma.shape[0]}"
