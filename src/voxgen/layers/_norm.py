"""Norms with float32 inside: per token, and per sample over all its cells."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int

T = TypeVar("T", Tensor, SparseTensor)


class LayerNorm32(nn.Module):
    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.channels = require_int("LayerNorm32", "channels", channels, 1)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: T) -> T:
        if isinstance(x, SparseTensor):
            return x.with_feats(self._normalise(x.feats))
        return self._normalise(x)

    def _normalise(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        weight = None if self.weight is None else self.weight.to(wide.dtype)
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        return F.layer_norm(wide, (self.channels,), weight, bias, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}, eps={self.eps}"
