"""StructureDecoder: from a latent cube to occupancy logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_tensor
from voxgen.layers import set_torso_dtype

from .blocks import ChannelLayerNorm, DenseResidualBlock, DenseUpsample
from .checks import require_counts, torso_dtype_of
from .described import CubeNetwork

__all__ = ["StructureDecoder"]


class StructureDecoder(CubeNetwork):
    """The mirror of `StructureEncoder`: the middle first, then the levels, coarse → fine.

    Args:
        out_channels: width of the output, 1 for occupancy.
        latent_channels: width of the latent.
        channels: width of each level, coarse → fine; the output's side is that of the latent times 2^(levels − 1).
        num_res_blocks: residual blocks at each level.
        num_res_blocks_middle: residual blocks at the coarsest level before those.
        torso_dtype: of the convolutions in blocks and middle_block; norms, input_layer and out_layer stay float32.
        checkpoint: recompute residual blocks in the backward pass instead of keeping their intermediate results.
    Parameters: `input_layer`, `middle_block.{i}`, `blocks.{i}` (residual and upsampling blocks in order), `out_layer.{0, 2}`.
    Attributes:
        factor: cells of the output along a side of one of the latent.
    Raises:
        RangeError: no level, or a width or number below what makes a network.
    Source: TRELLIS' structure VAE, and Direct3D-S2's dense VAE; differences: none.
    Example:
        >>> decoder = StructureDecoder(1, 4, channels=(16, 8), num_res_blocks=1, num_res_blocks_middle=1)
        >>> decoder(torch.zeros(2, 4, 4, 4, 4)).shape
        torch.Size([2, 1, 8, 8, 8])
    """

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        channels: Sequence[int],
        num_res_blocks: int,
        num_res_blocks_middle: int = 2,
        *,
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        widths = require_counts("StructureDecoder", channels, out_channels, latent_channels, num_res_blocks, num_res_blocks_middle)
        self._fields = {
            "out_channels": out_channels,
            "latent_channels": latent_channels,
            "channels": widths,
            "num_res_blocks": num_res_blocks,
            "num_res_blocks_middle": num_res_blocks_middle,
            "checkpoint": checkpoint,
        }
        self.latent_channels = latent_channels
        self.factor = 2 ** (len(widths) - 1)
        self.input_layer = nn.Conv3d(latent_channels, widths[0], 3, padding=1)
        self.middle_block = nn.Sequential(*(DenseResidualBlock(widths[0], checkpoint=checkpoint) for _ in range(num_res_blocks_middle)))
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.extend(DenseResidualBlock(width, checkpoint=checkpoint) for _ in range(num_res_blocks))
            if i + 1 < len(widths):
                self.blocks.append(DenseUpsample(width, widths[i + 1]))
        self.out_layer = nn.Sequential(ChannelLayerNorm(widths[-1]), nn.SiLU(), nn.Conv3d(widths[-1], out_channels, 3, padding=1))
        set_torso_dtype(self.blocks, torso_dtype)
        set_torso_dtype(self.middle_block, torso_dtype)

    def forward(self, z: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b o x2 y2 z2"]:
        """Latent (b, latent_channels, x, y, z) → logits (b, out_channels, ...), in the dtype of z.

        Raises:
            ShapeError, DtypeError: another width or dtype.
        """
        require_tensor("StructureDecoder", "z", z, ("b", self.latent_channels, "x", "y", "z"), FLOATS)
        h = self.input_layer(z.to(self.input_layer.weight.dtype)).to(torso_dtype_of(self.blocks, self.middle_block, default=z.dtype))
        h = self.middle_block(h)
        for block in self.blocks:
            h = block(h)
        return self.out_layer(h.to(self.out_layer[2].weight.dtype)).to(z.dtype)
