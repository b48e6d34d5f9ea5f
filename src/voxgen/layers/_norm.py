"""Norms with float32 inside: per token, and per sample over all its cells."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.segment import segment_broadcast, segment_reduce

from ._checks import require_width

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
        require_tensor("LayerNorm32", "x", x, ("...",) * (x.ndim - 1) + (self.channels,), FLOATS)
        weight, bias = self.weight, self.bias
        wide = x
        if weight is not None and bias is not None and weight.dtype != x.dtype:
            if x.dtype == torch.float64:
                weight, bias = weight.double(), bias.double()
            elif weight.dtype != torch.float32 or x.device.type != "cpu":  # a CPU takes float32 weights for half precision features
                wide, weight, bias = x.float(), weight.float(), bias.float()
        # torch takes the statistics of half precision features in float32 and rounds the result once
        return F.layer_norm(wide, (self.channels,), weight, bias, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}, eps={self.eps}"


class SparseGroupNorm(nn.Module):
    def __init__(self, num_groups: int, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        where = "SparseGroupNorm"
        self.channels = require_int(where, "channels", channels, 1)
        self.num_groups = require_int(where, "num_groups", num_groups, 1)
        if channels % num_groups:
            raise ShapeError(f"{where}: num_groups must divide the channels; got {num_groups} groups of {channels} channels.")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_width("SparseGroupNorm", x, self.channels)
        return _normalise_samples(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.channels}, affine={self.weight is not None}, eps={self.eps}"


class SparseInstanceNorm(nn.Module):
    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = require_int("SparseInstanceNorm", "channels", channels, 1)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_width("SparseInstanceNorm", x, self.channels)
        return _normalise_samples(x, self.channels, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}, eps={self.eps}"


def _normalise_samples(x: SparseTensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> SparseTensor:
    """Mean 0 and variance 1 for each sample and group of channels, then the affine map."""
    require_same_device("norm", x=x.feats, weights=weight)
    offsets = x.grid.offsets
    wide = x.feats if x.dtype == torch.float64 else x.feats.float()

    def mean(values: Tensor) -> Tensor:
        """(n, c) → (b, c), the mean of the sample and group, repeated for the channels of the group."""
        per_channel = segment_reduce(values, offsets, "mean").unflatten(1, (groups, -1))
        return per_channel.mean(-1, keepdim=True).expand_as(per_channel).flatten(1)

    def spread(values: Tensor) -> Tensor:
        return segment_broadcast(values, offsets, rows=len(x))

    # the variance of what is centred: the mean of squares less the square of the mean would cancel
    centred = wide - spread(mean(wide))
    scale = torch.rsqrt(mean(centred.square()) + eps)
    result = centred * spread(scale if weight is None else scale * weight)
    return x.with_feats((result if bias is None else result + bias).to(x.dtype))
