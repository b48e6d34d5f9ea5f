"""TextureDecoder: latent → features on the finest level's cells → Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.errors import ShapeError
from voxgen.layers import GaussianHead, LayerNorm32, OctantUpsample
from voxgen.models.slat.torso import SLatTorso
from voxgen.ops.resample import Structure
from voxgen.representations import GaussianSplats

from .config import TextureVAEConfig

__all__ = ["TextureDecoder"]


class TextureDecoder(SLatTorso):
    """The transformer of TRELLIS' decoders, levels that make features for given cells only, and a Gaussian head.

    `forward` stops before the head, so that views can be drawn tile by tile: `gaussians` takes any selection of the finest level's
    cells, and `voxgen.render.cull_voxels` says which of them a tile can show.

    Args:
        config: see `TextureVAEConfig`.
    Parameters: as `SLatTorso`, upsample.{l} as `OctantUpsample`, out_layer.linear (→ 14 Gaussians), zero at first.
    Batch: samples do not meet; empty samples and grids are legal.
    Source: Sparse-Up (Xiao et al.), texture decoder; the paper states the codec (TRELLIS') and two upsampling modules, no layers.
    """

    def __init__(self, config: TextureVAEConfig) -> None:
        super().__init__(config.decoder())
        self.activation = config.activation()
        levels = (config.model_channels, *config.widths)
        self.upsample = nn.ModuleList(OctantUpsample(a, b, checkpoint=config.use_checkpoint) for a, b in pairwise(levels))
        self.out_norm = LayerNorm32(levels[-1], affine=False, eps=1e-5)
        self.out_layer = GaussianHead(
            levels[-1], self.activation.count, voxel_size=self.activation.voxel_size, perturb_offset=self.activation.perturb_offset
        )
        self.finish(self.out_layer.linear, self.upsample)

    def forward(self, z: SparseTensor, structures: Sequence[Structure]) -> SparseTensor:
        """Features of the finest level's cells.

        Args:
            z: (n cells, latent_channels), not normalised.
            structures: one a level, coarse → fine: the children to make.
        Raises:
            ShapeError: another number of levels.   RangeError: structures of other cells.
        """
        if len(structures) != len(self.upsample):
            raise ShapeError(f"TextureDecoder: structures must be one for each of {len(self.upsample)} levels; got {len(structures)}.")
        h = self.run_torso(z)
        for level, structure in zip(self.upsample, structures, strict=True):
            h = level(h, structure)
        return self.out_norm(h.to(self.out_layer.linear.weight.dtype))

    def gaussians(self, h: SparseTensor) -> GaussianSplats:
        """Gaussians of cells of the finest level: those of row r are rows r g to r g + g − 1."""
        raw = self.out_layer(h)
        return GaussianSplats.from_features(raw.grid, raw.feats, self.activation, offset_perturbation=self.out_layer.offset_perturbation)
