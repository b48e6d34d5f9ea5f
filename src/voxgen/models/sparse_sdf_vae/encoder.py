"""SparseSDFEncoder: from distances in a narrow band to a latent on a grid an eighth as fine."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import nn

from voxgen.core import SparseTensor
from voxgen.layers import DiagonalGaussian, LatentHead, LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._trunk import LOGVAR_RANGE, TORSO_DTYPES, window_blocks
from voxgen.models.sc_vae import Encoded
from voxgen.models.sc_vae._blocks import initialize
from voxgen.ops.resample import Structure

from .blocks import SDFDownBlock
from .config import SDFEncoderConfig

__all__ = ["SparseSDFEncoder"]


class SparseSDFEncoder(nn.Module):
    """The encoder of Direct3D-S2's SS-VAE, of any width and depth.

    A linear layer, three `SDFDownBlock`s, a linear layer, the position code, transformer blocks with shifted windows, a norm
    without parameters (eps 1e-5), and a linear layer to mean and log variance.

    Args:
        config: see `SDFEncoderConfig`.
    Parameters: input_layer1 (1 → C/16), downsample.{0,1,2}, input_layer (C → C), blocks.{i}.attn.{to_qkv,to_out},
        blocks.{i}.mlp.mlp.{0,2}, out_layer.linear (C → 2 · latent). Linear layers start Xavier-uniform with zero biases, out_layer
        at zero, convolutions uniform.
    Numerics: in the dtype of the weights (`config.torso_dtype`), norms and the sum with the position code in float32.
    Batch: samples do not meet; empty samples and empty grids are legal.
    Source: Direct3D-S2 (arXiv 2505.17412), SS-VAE encoder. Differences: structures are returned and not cached.
    Example:
        >>> config = SDFEncoderConfig(model_channels=64, num_blocks=1, num_heads=2, num_groups=4, latent_channels=4)
        >>> SparseSDFEncoder(config)(sdf.normalized()).posterior.mean.channels
        4
    """

    def __init__(self, config: SDFEncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = (*config.finer_channels, config.model_channels)
        pooling = "mean_plus_one" if config.compat == "direct3d_s2" else "mean"
        self.input_layer1 = nn.Linear(1, widths[0])
        self.downsample = nn.ModuleList(SDFDownBlock(a, b, num_groups=config.num_groups, pooling=pooling) for a, b in pairwise(widths))
        self.input_layer = nn.Linear(config.model_channels, config.model_channels)
        self.blocks = window_blocks(config)
        self.tail_norm = LayerNorm32(config.model_channels, affine=False, eps=1e-5)
        self.out_layer = LatentHead(config.model_channels, config.latent_channels)
        initialize(self)
        nn.init.zeros_(self.out_layer.linear.weight)
        set_torso_dtype(self, TORSO_DTYPES[config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SparseSDFEncoder:
        """The inverse of `description`, with fresh weights."""
        return cls(SDFEncoderConfig(**values))

    def forward(self, x: SparseTensor, *, factor: float = 1.0) -> Encoded:
        """Distances (n, 1) over the band → posterior on the latent grid, and the levels between.

        Args:
            x: (n, 1) in [−1, 1], negative inside: `SparseSDF.normalized()`.
            factor: by which cell indices of the latent are multiplied in the position code; 512 / resolution puts shapes of all
                resolutions on one scale.
        Raises:
            ShapeError, DtypeError: features that do not fit.   RangeError: a factor that is not positive.
        """
        where = "SparseSDFEncoder"
        require_width(where, x, 1)
        h = x.with_feats(self.input_layer1(x.feats.to(self.input_layer1.weight.dtype)))
        structures: list[Structure] = []
        for block in self.downsample:
            h, structure = block(h)
            structures.append(structure)
        h = self.blocks(h.with_feats(self.input_layer(h.feats)), factor=factor)
        posterior = self.out_layer(self.tail_norm(h))
        clamped = DiagonalGaussian(posterior.mean, posterior.logvar.clamp(*LOGVAR_RANGE))
        return Encoded(clamped, tuple(reversed(structures)))
