"""SCEncoder: from features on a fine grid to a latent on a coarse one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from voxgen.core import SparseTensor
from voxgen.layers import DiagonalGaussian, LatentHead, LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_input
from voxgen.ops.resample import Structure

from ._blocks import block, down_block, initialize, torso_dtype
from .config import TORSO_DTYPES, EncoderConfig


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder gives.

    Attributes:
        posterior: mean (a SparseTensor on the latent grid) and log variance; see `DiagonalGaussian`.
        structures: the levels passed, coarse → fine, as a decoder of the same number of levels takes them: `structures[0]`
            begins at the latent grid, the last ends at the encoder's input grid.
    """

    posterior: DiagonalGaussian
    structures: tuple[Structure, ...]


class SCEncoder(nn.Module):
    """The encoder of TRELLIS.2's SC-VAE, of any width, depth and kind of block.

    A linear layer, then at each level blocks and a resampling block to the next coarser level, then a norm without
    parameters (eps 1e-5) and a linear layer to mean and log variance.

    Args:
        config: see `EncoderConfig`.
    Raises:
        ShapeError: widths that a resampling block cannot join.
    Parameters: input_layer (in → C0), blocks.{level}.{i}, to_latent.linear (C_last → 2 · latent). Linear layers start
        Xavier-uniform with zero biases, convolutions Kaiming-uniform, and the last convolution of every resampling block
        at zero, so that it begins as its shortcut.
    Numerics: the blocks compute in the dtype of their weights (`config.torso_dtype`), norms in float32, the first and last
        layer in their own dtype.
    Batch: samples have no influence on each other, but for the rounding of matrix products of other heights; empty samples and
        empty grids are legal.
    Source: Native and Compact Structured Latents for 3D Generation, SC-VAE. Differences: the structures of the levels are
        returned and not cached.
    Example:
        >>> encoder = SCEncoder(EncoderConfig(model_channels=(16, 32), num_blocks=(0, 1), latent_channels=4))
        >>> x = SparseTensor(grid, torch.rand(len(grid), 6))
        >>> encoder(x).posterior.mean.channels
        4
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.model_channels
        self.input_layer = nn.Linear(config.in_channels, widths[0])
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = [block(config.block_type[i], width, config.args[i]) for _ in range(config.num_blocks[i])]
            if i + 1 < len(widths):
                level.append(down_block(config.down_block_type[i], width, widths[i + 1], config.args[i]))
            self.blocks.append(nn.ModuleList(level))
        self.tail_norm = LayerNorm32(widths[-1], affine=False, eps=1e-5)
        self.to_latent = LatentHead(widths[-1], config.latent_channels)
        initialize(self)
        set_torso_dtype(self.blocks, TORSO_DTYPES[config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SCEncoder:
        """The inverse of `description`, with fresh weights."""
        return cls(EncoderConfig(**values))

    def forward(self, x: SparseTensor) -> Encoded:
        """Features (n, in_channels) on a grid → posterior on the latent grid, and the levels between.

        Raises:
            ShapeError, DtypeError, DeviceError: features that do not fit the first layer.
        """
        require_input("SCEncoder", x, self.config.in_channels, self.input_layer.weight)
        last = len(self.blocks) - 1
        h = x.with_feats(self.input_layer(x.feats)).to(torso_dtype(self.blocks, x.dtype))
        structures: list[Structure] = []
        for i, level in enumerate(self.blocks):
            for part in cast(nn.ModuleList, level)[: self.config.num_blocks[i]]:
                h = part(h)
            if i < last:
                h, structure = cast(nn.ModuleList, level)[-1](h)
                structures.append(structure)
        h = self.tail_norm(h.to(self.to_latent.linear.weight.dtype))
        return Encoded(self.to_latent(h), tuple(reversed(structures)))
