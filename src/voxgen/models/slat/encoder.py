"""SLatEncoder: features of surface cells to the structured latent."""

from __future__ import annotations

from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError
from voxgen.layers import DiagonalGaussian, LatentHead, LayerNorm32

from .config import SLatConfig
from .torso import SLatTorso

__all__ = ["SLatEncoder"]


class SLatEncoder(SLatTorso):
    """The encoder of TRELLIS: image features gathered on the cells of a surface → posterior of the latent on the same cells.

    Args:
        config: see `SLatConfig`; out_channels is twice the latent's width.
    Parameters: as `SLatTorso`, and out_layer.linear (C → 2 · latent), zero at first.
    Raises:
        RangeError: an odd number of out_channels. By `forward`: a grid finer than the configuration's.   ShapeError, DtypeError,
        DeviceError: x that does not fit.
    Numerics: input_layer, last norm (eps 1e-5) and out_layer in float32; blocks in the torso's dtype.
    Batch: samples do not meet; empty samples and grids are legal.
    Source: TRELLIS (arXiv 2412.01506), `SLatEncoder`; differences: none.
    Example:
        >>> encoder = build("trellis/slat-encoder", in_channels=24, model_channels=48, num_blocks=1, num_heads=4, use_fp16=False)
        >>> encoder(x).mean.channels                                      # x: SparseTensor of 24 channels
        8
    """

    def __init__(self, config: SLatConfig) -> None:
        super().__init__(config)
        if config.out_channels % 2:
            raise RangeError(f"SLatEncoder: out_channels must be even, mean and log variance; got {config.out_channels}.")
        self.out_norm = LayerNorm32(config.model_channels, affine=False, eps=1e-5)
        self.out_layer = LatentHead(config.model_channels, config.out_channels // 2)
        self.finish(self.out_layer.linear)

    def forward(self, x: SparseTensor) -> DiagonalGaussian:
        """Features (n cells, in_channels) → mean and log variance on the same cells, in float32 (float64 for float64 weights)."""
        h = self.run_torso(x).to(self.out_layer.linear.weight.dtype)
        return self.out_layer(self.out_norm(h))
