"""Blocks of the refiners' U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.errors import RangeError
from voxgen.layers._checkpoint import run

__all__ = ["GroupNorm32", "VolumeDownBlock", "VolumeMidBlock", "VolumeResidualBlock", "VolumeUpBlock"]

EPS = 1e-5


class GroupNorm32(nn.GroupNorm):
    """Group norm of a dense volume, in float32 (float64 for float64) whatever the dtype of the volume; rounded once.

    Parameters: `weight`, `bias` (channels,), which stay float32 in half networks.
    """

    def __init__(self, groups: int, channels: int) -> None:
        if channels % groups:
            raise RangeError(f"GroupNorm32: groups must divide the channels; got {groups} and {channels}.")
        super().__init__(groups, channels, eps=EPS)

    def forward(self, input: Tensor) -> Tensor:
        wide = torch.promote_types(input.dtype, torch.float32)
        return F.group_norm(input.to(wide), self.num_groups, self.weight.to(wide), self.bias.to(wide), self.eps).to(input.dtype)


class VolumeResidualBlock(nn.Module):
    """shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))))).

    Args:
        in_channels, out_channels: widths before and after.
        groups: of the norms.
        checkpoint: recompute the block in the backward pass instead of keeping its intermediate results.
    Parameters: `norm1`, `conv1`, `norm2`, `conv2`, and `conv_shortcut` (1×1×1) where the width changes.
    Shape: (b, in_channels, x, y, z) → (b, out_channels, x, y, z).
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm1 = GroupNorm32(groups, in_channels)
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm32(groups, out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.checkpoint = checkpoint

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b d x y z"]:
        return run(self.checkpoint, self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Resampling(nn.Module):
    """A convolution that halves, or a transposed one that doubles the sides, at one width."""

    def __init__(self, channels: int, kind: type[nn.Conv3d] | type[nn.ConvTranspose3d]) -> None:
        super().__init__()
        self.conv = kind(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class VolumeDownBlock(nn.Module):
    """Residual blocks, then half the resolution; returns what each of them made, for the way up.

    Args:
        in_channels, out_channels: widths before and after.
        layers: residual blocks.
        groups: of the norms.
        downsample: whether the block ends with halving.
        checkpoint: as `VolumeResidualBlock`.
    Parameters: `resnets.{i}`, `downsamplers.0.conv` (2×2×2, stride 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, groups: int, *, downsample: bool, checkpoint: bool = False
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(VolumeResidualBlock(a, b, groups, checkpoint=checkpoint) for a, b in pairwise(widths))
        self.downsamplers = nn.ModuleList([Resampling(out_channels, nn.Conv3d)] if downsample else [])

    def forward(self, x: Float[Tensor, "b c x y z"]) -> tuple[Float[Tensor, "b d x2 y2 z2"], list[Tensor]]:
        made = []
        for part in (*self.resnets, *self.downsamplers):
            x = part(x)
            made.append(x)
        return x, made


class VolumeMidBlock(nn.Module):
    """Residual blocks at the coarsest level. Parameters: `resnets.{i}`."""

    def __init__(self, channels: int, layers: int, groups: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(VolumeResidualBlock(channels, channels, groups, checkpoint=checkpoint) for _ in range(layers))

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        for block in self.resnets:
            x = block(x)
        return x


class VolumeUpBlock(nn.Module):
    """Residual blocks, each on [what comes from below, one skip], then twice the resolution.

    Args:
        in_channels, out_channels: widths before and after.
        skip_channels: width of each skip, in the order of use; one residual block each.
        groups: of the norms.
        upsample: whether the block ends with doubling.
        checkpoint: as `VolumeResidualBlock`.
    Parameters: `resnets.{i}`, `upsamplers.0.conv` (transposed, 2×2×2, stride 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, skip_channels: list[int], groups: int, *, upsample: bool, checkpoint: bool = False
    ) -> None:
        super().__init__()
        below = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        self.resnets = nn.ModuleList(
            VolumeResidualBlock(a + b, out_channels, groups, checkpoint=checkpoint) for a, b in zip(below, skip_channels, strict=True)
        )
        self.upsamplers = nn.ModuleList([Resampling(out_channels, nn.ConvTranspose3d)] if upsample else [])

    def forward(self, x: Float[Tensor, "b c x y z"], skips: list[Tensor]) -> Float[Tensor, "b d x2 y2 z2"]:
        """`skips` is a stack: the last made is used first, and taken off."""
        for block in self.resnets:
            x = block(torch.cat([x, skips.pop()], 1))
        for part in self.upsamplers:
            x = part(x)
        return x
