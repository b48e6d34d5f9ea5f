"""SparseFlexEncoder: from features of voxels to a latent on the same voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from voxgen.core import SparseTensor
from voxgen.layers import DiagonalGaussian, LatentHead, LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._trunk import LOGVAR_RANGE, TORSO_DTYPES, window_blocks
from voxgen.models.sc_vae._blocks import initialize

from .config import FlexEncoderConfig

__all__ = ["SparseFlexEncoder"]


class SparseFlexEncoder(nn.Module):
    """The transformer half of TripoSF's encoder, of any width and depth: features of voxels → distribution of the latent there.

    A linear layer, the position code, transformer blocks with shifted windows, a norm without parameters (eps 1e-5), and a linear
    layer to mean and log variance, which is clamped to [−30, 20]. What the features are is open: TripoSF's come from points
    (`PointCloudEncoder`).

    Args:
        config: see `FlexEncoderConfig`.
    Parameters: input_layer (in → C), blocks.{i}.attn.{to_qkv,to_out}, blocks.{i}.mlp.mlp.{0,2}, out_layer.linear (C → 2 · latent).
        Linear layers start Xavier-uniform with zero biases, out_layer at zero.
    Numerics: in the dtype of the weights (`config.torso_dtype`), norms and the sum with the position code in float32.
    Batch: samples do not meet; empty samples and empty grids are legal.
    Source: TripoSF (arXiv 2503.21732), VAE encoder; differences: none.
    Example:
        >>> config = FlexEncoderConfig(in_channels=16, model_channels=64, num_blocks=1, num_heads=2, latent_channels=4)
        >>> SparseFlexEncoder(config)(x).mean.channels                    # x: SparseTensor of 16 channels
        4
    """

    def __init__(self, config: FlexEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_layer = nn.Linear(config.in_channels, config.model_channels)
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
    def from_description(cls, values: Mapping[str, Any]) -> SparseFlexEncoder:
        """The inverse of `description`, with fresh weights."""
        return cls(FlexEncoderConfig(**values))

    def forward(self, x: SparseTensor, *, factor: float = 1.0) -> DiagonalGaussian:
        """Features (n, in_channels) → posterior on the same grid.

        Args:
            x: one row a voxel, of any float dtype.
            factor: by which cell indices are multiplied in the position code; see `WindowTransformer.forward`.
        Raises:
            ShapeError, DtypeError: features that do not fit.   RangeError: a factor that is not positive.
        """
        require_width("SparseFlexEncoder", x, self.config.in_channels)
        h = x.with_feats(self.input_layer(x.feats.to(self.input_layer.weight.dtype)))
        posterior = self.out_layer(self.tail_norm(self.blocks(h, factor=factor)))
        return DiagonalGaussian(posterior.mean, posterior.logvar.clamp(*LOGVAR_RANGE))
