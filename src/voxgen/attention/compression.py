"""Block summaries: the keys and values of the compression branch of spatial sparse attention."""

from __future__ import annotations

from typing import Literal

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.layers import SparseConv3d, SparseGroupNorm, pointwise
from voxgen.ops.resample import Structure, pool

__all__ = ["Compression", "ConvolutionalCompression", "PointwiseCompression", "compression_module"]

Compression = Literal["v1", "v2"]
"""How the tokens of a block become one: `PointwiseCompression` (Direct3D-S2 v1.1) or `ConvolutionalCompression` (v1.0).

The names are the release's, and "v2" is the one of the older release.
"""

GROUPS = 32


class PointwiseCompression(nn.Module):
    """δ(u) = pool(SiLU(u W + b)): no token sees another before the pooling.

    Args:
        channels: of keys or values, all heads together.
    Parameters: `act_layers.0.conv.{weight (channels, channels), bias}`; weight is used as u @ weight.
    Shape: x SparseTensor on `structure.children` → SparseTensor on `structure.parents`.
    Source: Direct3D-S2, compression "v1" of its code; pooling divides by the number of tokens plus one. Differences: none.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act_layers = nn.Sequential(_Convolution(channels, 1), pointwise(nn.SiLU()))

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        return _pooled(self.act_layers(x), structure)


class ConvolutionalCompression(nn.Module):
    """δ(u) = pool(u) + Conv(SiLU(Norm(Conv(pool(SiLU(Norm(u))))))): a block sees its neighbours, two blocks far.

    Args:
        channels: of keys or values, all heads together; a multiple of 32, the groups of the norms.
    Parameters: `act_layers.0.{weight, bias}` and `out_layers.1.{weight, bias}` (channels,) of the norms, float32 in a
        half-precision torso; `out_layers.{0, 3}.conv.{weight (27, channels, channels), bias}`.
    Shape: x SparseTensor on `structure.children` → SparseTensor on `structure.parents`.
    Raises:
        RangeError: channels that 32 does not divide.
    Source: Direct3D-S2, compression "v2" of its code; pooling divides by the number of tokens plus one. Differences: a sample
        of one token gives the norm's bias where the original stops with an error.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % GROUPS:
            raise RangeError(
                f"ConvolutionalCompression: channels must be a multiple of its {GROUPS} groups; got {channels}. "
                "They are kv_heads times the width of a head; compression 'v1' takes any number."
            )
        self.act_layers = nn.Sequential(SparseGroupNorm(GROUPS, channels), pointwise(nn.SiLU()))
        self.out_layers = nn.Sequential(
            _Convolution(channels, 3),
            SparseGroupNorm(GROUPS, channels),
            pointwise(nn.SiLU()),
            _Convolution(channels, 3),
        )

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        seen = self.out_layers(_pooled(self.act_layers(x), structure))
        return seen.with_feats(_pooled(x, structure).feats + seen.feats)


class _Convolution(nn.Module):
    """A convolution under the name that it has in the published files."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = SparseConv3d(channels, channels, kernel_size)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.conv(x)


def compression_module(where: str, version: Compression, channels: int) -> PointwiseCompression | ConvolutionalCompression:
    """The module of a version; RangeError for an unknown one."""
    require_choice(where, "compression", version, ("v1", "v2"))
    return PointwiseCompression(channels) if version == "v1" else ConvolutionalCompression(channels)


def _pooled(x: SparseTensor, structure: Structure) -> SparseTensor:
    return SparseTensor(structure.parents, pool(x.feats, structure, "mean_plus_one"))
