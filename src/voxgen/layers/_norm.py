"""Norms with float32 inside: per token, and per sample over all its cells."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.segment import segment_broadcast, segment_reduce

from ._checks import require_channels, require_width

T = TypeVar("T", Tensor, SparseTensor)


class LayerNorm32(nn.Module):
    """Layer norm over the channels of each row, with statistics in float32.

    Args:
        channels: c, length of the last axis.
        affine: False leaves weight and bias out.
        eps: added to the variance.
    Parameters:
        weight: (c,), ones at first.   bias: (c,), zeros at first. They stay float32 in a half-precision torso
        (`set_torso_dtype`).
    Takes and returns a SparseTensor, or a tensor (…, c), of any float dtype.
    Raises:
        ShapeError: another last axis.   DtypeError: not floats.
    Differentiable. Empty input is legal. Each row stands alone, so batches do not matter.
    Cost: one pass of torch's `layer_norm`.
    Source: `LayerNorm32` of TRELLIS.2 (eps 1e-6 in blocks; the last norm of its networks has no affine and eps 1e-5).
    Numerics: float32 inside, float64 for float64; rounded once to the input's dtype.
    Example:
        >>> y = LayerNorm32(16)(x)                                        # x: SparseTensor of 16 channels
        >>> tail = LayerNorm32(16, affine=False, eps=1e-5)(y.feats)
    """

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        require_channels("LayerNorm32", channels=channels)
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: T) -> T:
        """Normalise each row; the result is of x's type, shape and dtype."""
        if isinstance(x, SparseTensor):
            return x.with_feats(self._normalise(x.feats))
        return self._normalise(x)

    def _normalise(self, x: Tensor) -> Tensor:
        require_tensor("LayerNorm32", "x", x, dtypes=FLOATS)
        if x.ndim == 0 or x.shape[-1] != self.channels:
            raise ShapeError(f"LayerNorm32: the last axis of x must have {self.channels} channels; got {tuple(x.shape)}.")
        require_same_device("LayerNorm32", x=x, weights=self.weight)
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
    """Group norm: each sample and group of channels gets mean 0 and variance 1 over all of the sample's cells.

    Args:
        num_groups: groups of consecutive channels; must divide the channels.
        channels: c.
        affine: False leaves weight and bias out.
        eps: added to the variance.
    Parameters:
        weight: (c,), ones at first.   bias: (c,), zeros at first.
    Raises:
        ShapeError: groups that do not divide the channels; by `forward`, another number of channels.
        DtypeError: not a SparseTensor of floats.   DeviceError: x and weights on different devices.
    Differentiable. Empty samples and empty tensors are legal.   Batch: a sample gives the same numbers alone and in any batch.
    Cost: five passes over the features, and as many temporary copies while gradients are wanted, two without.
    Source: the sparse group norm of TRELLIS.2's code, which no released model uses; differences: none.
    Numerics: float32 inside (float64 for float64), variance of what is centred first; rounded once. Deterministic.
    Example:
        >>> y = SparseGroupNorm(num_groups=4, channels=16)(x)             # x: SparseTensor of 16 channels
    """

    def __init__(self, num_groups: int, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        where = "SparseGroupNorm"
        require_channels(where, num_groups=num_groups, channels=channels)
        self.channels = channels
        self.num_groups = num_groups
        if channels % num_groups:
            raise ShapeError(f"{where}: num_groups must divide the channels; got {num_groups} groups of {channels} channels.")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Normalise; the same cells and dtype."""
        require_width("SparseGroupNorm", x, self.channels)
        return _normalise_samples("SparseGroupNorm", x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.channels}, affine={self.weight is not None}, eps={self.eps}"


class SparseInstanceNorm(nn.Module):
    """Instance norm: each channel of each sample gets mean 0 and variance 1 over the sample's cells.

    `SparseGroupNorm` with a group for each channel; what is said there of errors, batches, cost and numerics holds.

    Args:
        channels: c.
        affine: False leaves weight and bias out.
        eps: added to the variance.
    Parameters:
        weight: (c,), ones at first.   bias: (c,), zeros at first.
    Source: instance norm over the cells that exist; TRELLIS.2 has none.
    Example:
        >>> y = SparseInstanceNorm(16)(x)                                 # x: SparseTensor of 16 channels
    """

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        require_channels("SparseInstanceNorm", channels=channels)
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Normalise; the same cells and dtype."""
        require_width("SparseInstanceNorm", x, self.channels)
        return _normalise_samples("SparseInstanceNorm", x, self.channels, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}, eps={self.eps}"


def _normalise_samples(where: str, x: SparseTensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> SparseTensor:
    """Mean 0 and variance 1 for each sample and group of channels, then the affine map."""
    require_same_device(where, x=x.feats, weights=weight)
    offsets = x.grid.offsets
    wide = x.feats if x.dtype == torch.float64 else x.feats.float()

    def mean(values: Tensor) -> Tensor:
        """(n, c) → (b, c), the mean of the sample and group, repeated for the channels of the group."""
        per_channel = segment_reduce(values, offsets, "mean").unflatten(1, (groups, -1))
        return per_channel.mean(-1, keepdim=True).expand_as(per_channel).flatten(1)

    inference = not torch.is_grad_enabled()

    def spread(values: Tensor) -> Tensor:
        if inference and len(values) == 1:
            return values  # one sample: its row serves all rows as it is
        return segment_broadcast(values, offsets, rows=len(x))

    # the variance of what is centred: the mean of squares less the square of the mean would cancel
    centred = wide - spread(mean(wide))
    scale = torch.rsqrt(mean(centred.square()) + eps)
    factor = spread(scale if weight is None else scale * weight)
    result = centred.mul_(factor) if inference else centred * factor
    if bias is not None:
        result = result.add_(bias) if inference else result + bias
    return x.with_feats(result.to(x.dtype))
