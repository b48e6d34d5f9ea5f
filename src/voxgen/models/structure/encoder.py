"""StructureEncoder: from occupancy of a dense cube to a small latent cube."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_tensor
from voxgen.layers import set_torso_dtype

from .blocks import ChannelLayerNorm, DenseDownsample, DenseResidualBlock
from .checks import require_counts, require_sides, torso_dtype_of
from .described import CubeNetwork
from .posterior import DensePosterior

__all__ = ["StructureEncoder"]


class StructureEncoder(CubeNetwork):
    """Dense convolutions on a cube of values, halved once between each two levels.

    Args:
        in_channels: width of the input, 1 for occupancy.
        latent_channels: width of the latent.
        channels: width of each level, fine → coarse; the latent's side is that of the input over 2^(levels − 1).
        num_res_blocks: residual blocks at each level.
        num_res_blocks_middle: residual blocks at the coarsest level after those.
        torso_dtype: of the convolutions in blocks and middle_block; norms, input_layer and out_layer stay float32.
        checkpoint: recompute residual blocks in the backward pass instead of keeping their intermediate results.
    Parameters: `input_layer`, `blocks.{i}` (residual and downsampling blocks in order), `middle_block.{i}`, `out_layer.{0, 2}`.
    Raises:
        RangeError: no level, or a width or number below what makes a network.
    Source: TRELLIS' structure VAE (64³ to 8 × 16³), and Direct3D-S2's dense VAE; differences: none.
    Example:
        >>> encoder = StructureEncoder(1, 4, channels=(8, 16), num_res_blocks=1, num_res_blocks_middle=1)
        >>> encoder(torch.zeros(2, 1, 8, 8, 8)).mean.shape
        torch.Size([2, 4, 4, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        channels: Sequence[int],
        num_res_blocks: int,
        num_res_blocks_middle: int = 2,
        *,
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        widths = require_counts("StructureEncoder", channels, in_channels, latent_channels, num_res_blocks, num_res_blocks_middle)
        self._fields = {
            "in_channels": in_channels,
            "latent_channels": latent_channels,
            "channels": widths,
            "num_res_blocks": num_res_blocks,
            "num_res_blocks_middle": num_res_blocks_middle,
            "checkpoint": checkpoint,
        }
        self.in_channels = in_channels
        self.input_layer = nn.Conv3d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.extend(DenseResidualBlock(width, checkpoint=checkpoint) for _ in range(num_res_blocks))
            if i + 1 < len(widths):
                self.blocks.append(DenseDownsample(width, widths[i + 1]))
        self.middle_block = nn.Sequential(*(DenseResidualBlock(widths[-1], checkpoint=checkpoint) for _ in range(num_res_blocks_middle)))
        self.out_layer = nn.Sequential(ChannelLayerNorm(widths[-1]), nn.SiLU(), nn.Conv3d(widths[-1], 2 * latent_channels, 3, padding=1))
        self.factor = 2 ** (len(widths) - 1)
        set_torso_dtype(self.blocks, torso_dtype)
        set_torso_dtype(self.middle_block, torso_dtype)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> DensePosterior:
        """Values of cells (b, in_channels, x, y, z) → posterior of the latent, in the dtype of x.

        Raises:
            ShapeError, DtypeError: another width or dtype, or sides that do not halve at each level.
        """
        require_tensor("StructureEncoder", "x", x, ("b", self.in_channels, "x", "y", "z"), FLOATS)
        require_sides("StructureEncoder", x, self.factor)
        h = self.input_layer(x.to(self.input_layer.weight.dtype)).to(torso_dtype_of(self.blocks, self.middle_block, default=x.dtype))
        for block in self.blocks:
            h = block(h)
        h = self.middle_block(h)
        mean, logvar = self.out_layer(h.to(self.out_layer[2].weight.dtype)).to(x.dtype).chunk(2, 1)
        return DensePosterior(mean, logvar)
