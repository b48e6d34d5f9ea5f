"""UNet3D: the dense network inside the refiners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.models.structure.checks import require_sides

from .unet_blocks import GroupNorm32, VolumeDownBlock, VolumeMidBlock, VolumeUpBlock

__all__ = ["UNet3D"]


class UNet3D(nn.Module):
    """Residual blocks at falling resolution and back, with a skip from every block on the way down to one on the way up.

    Args:
        in_channels: width of the input. The output has `block_out_channels[0]`.
        block_out_channels: width of each level, fine → coarse.
        layers_per_block: residual blocks of a level on the way down; one more on the way up.
        layers_mid_block: residual blocks at the coarsest level between, less one.
        norm_num_groups: of the group norms; it divides every width.
        checkpoint: recompute residual blocks in the backward pass instead of keeping their intermediate results.
    Parameters: `conv_in`, `down_blocks.{i}`, `mid_block`, `up_blocks.{i}`, `conv_norm_out`; it has no last convolution.
    Shape: (b, in_channels, x, y, z) with sides that are multiples of 2^(levels − 1) → (b, block_out_channels[0], x, y, z), in
        the dtype of the weights.
    Raises:
        RangeError: numbers that make no network.   ShapeError, DtypeError: an input that does not fit.
    Source: Direct3D-S2's refiners (not in the paper); differences: none.
    Attributes:
        out_channels: width of the output.   factor: sides of the input must be multiples of it.
    Numerics: norms in float32.
    Example:
        >>> UNet3D(4, (8, 16), layers_per_block=1)(torch.zeros(1, 4, 8, 8, 8)).shape
        torch.Size([1, 8, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        block_out_channels: Sequence[int] = (8, 32, 128, 512),
        *,
        layers_per_block: int = 2,
        layers_mid_block: int = 2,
        norm_num_groups: int = 4,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "UNet3D"
        self.in_channels = require_int(where, "in_channels", in_channels, 1)
        require_int(where, "layers_per_block", layers_per_block, 1)
        require_int(where, "layers_mid_block", layers_mid_block, 0)
        groups = require_int(where, "norm_num_groups", norm_num_groups, 1)
        widths = [require_int(where, f"block_out_channels[{i}]", width, 1) for i, width in enumerate(block_out_channels)]
        if not widths:
            raise RangeError(f"{where}: block_out_channels must have at least one level; got none.")
        self._fields = {
            "in_channels": in_channels,
            "block_out_channels": widths,
            "layers_per_block": layers_per_block,
            "layers_mid_block": layers_mid_block,
            "norm_num_groups": groups,
            "checkpoint": checkpoint,
        }
        self.out_channels = widths[0]
        self.factor = 2 ** (len(widths) - 1)

        self.conv_in = nn.Conv3d(in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]
        for i, width in enumerate(widths):
            last = i + 1 == len(widths)
            self.down_blocks.append(
                VolumeDownBlock(widths[max(i - 1, 0)], width, layers_per_block, groups, downsample=not last, checkpoint=checkpoint)
            )
            skips += [width] * (layers_per_block if last else layers_per_block + 1)
        self.mid_block = VolumeMidBlock(widths[-1], layers_mid_block + 1, groups, checkpoint=checkpoint)
        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for i, width in enumerate(reversed(widths)):
            used = [skips.pop() for _ in range(layers_per_block + 1)]
            self.up_blocks.append(VolumeUpBlock(below, width, used, groups, upsample=i + 1 < len(widths), checkpoint=checkpoint))
            below = width
        self.conv_norm_out = GroupNorm32(groups, widths[0])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return dict(self._fields)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b d x y z"]:
        require_tensor("UNet3D", "x", x, ("b", self.in_channels, "x", "y", "z"), FLOATS)
        require_sides("UNet3D", x, self.factor)
        h = self.conv_in(x.to(self.conv_in.weight.dtype))
        skips = [h]
        for down in self.down_blocks:
            h, made = down(h)
            skips += made
        h = self.mid_block(h)
        for up in self.up_blocks:
            h = up(h, skips)
        return F.silu(self.conv_norm_out(h), inplace=True)
