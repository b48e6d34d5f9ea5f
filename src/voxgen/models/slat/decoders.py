"""Decoders of structured latents: to Gaussians, and to the raw cubes of a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.errors import ShapeError
from voxgen.layers import GaussianHead, LayerNorm32, NearestUpsample
from voxgen.ops.resample import Structure

from .config import SLatConfig
from .torso import SLatTorso

__all__ = ["MESH_CHANNELS", "SLatGaussianDecoder", "SLatMeshDecoder"]

MESH_CHANNELS = 101
"""Raw numbers of a cube with colours: 8 distances, 24 displacements, 48 colours and normals of corners, 21 weights of FlexiCubes."""


class SLatGaussianDecoder(SLatTorso):
    """The Gaussian decoder of TRELLIS: latent → raw channels of the Gaussians of each cell.

    Args:
        config: see `SLatConfig`; out_channels is 14 times the Gaussians a cell.
        voxel_size, perturb_offset: as in `GaussianHead`.
    Parameters: as `SLatTorso`, and out_layer.linear (C → 14 n), zero at first. Buffer: out_layer.offset_perturbation (n, 3).
    Raises:
        ShapeError: out_channels that are no multiple of 14.   RangeError: a voxel_size that is not above 1. By `forward`, as
        `SLatEncoder`.
    Numerics, batch: as `SLatEncoder`.
    Source: TRELLIS (arXiv 2412.01506), `SLatGaussianDecoder`; differences: the result is raw; a representation activates it.
    Example:
        >>> decoder = build("trellis/gaussian-decoder", model_channels=48, num_blocks=1, num_heads=4, use_fp16=False)
        >>> decoder(z).channels                                           # z: SparseTensor of 8 channels
        448
    """

    def __init__(self, config: SLatConfig, *, voxel_size: float = 1.5, perturb_offset: bool = True) -> None:
        super().__init__(config)
        if config.out_channels % GaussianHead.WIDTH:
            raise ShapeError(f"SLatGaussianDecoder: out_channels must be a multiple of {GaussianHead.WIDTH}; got {config.out_channels}.")
        self.out_norm = LayerNorm32(config.model_channels, affine=False, eps=1e-5)
        count = config.out_channels // GaussianHead.WIDTH
        self.out_layer = GaussianHead(config.model_channels, count, voxel_size=voxel_size, perturb_offset=perturb_offset)
        self.finish(self.out_layer.linear)

    def forward(self, z: SparseTensor) -> SparseTensor:
        """Latents (n cells, in_channels), not normalised → raw channels (n, 14 · Gaussians) on the same cells."""
        h = self.run_torso(z).to(self.out_layer.linear.weight.dtype)
        return self.out_layer(self.out_norm(h))


class SLatMeshDecoder(SLatTorso):
    """The mesh decoder of TRELLIS up to the raw numbers of its cubes: torso, then levels of which every child is made.

    Args:
        config: see `SLatConfig`; out_channels is the width of a cube's numbers, `MESH_CHANNELS` with colours and 53 without.
        widths: of the levels above the latent's, coarse → fine; () makes none.
        num_groups: of the norms in those levels.
    Parameters: as `SLatTorso`, upsample.{i} as `NearestUpsample` with group norms, out_layer (→ out_channels), zero at first.
    Raises:
        ShapeError: groups that do not divide a width.   By `forward`, as `SLatEncoder`.
    Numerics: levels in the torso's dtype, their norms and out_layer in float32. No norm before out_layer, as published.
    Batch: statistics of norms are of each sample; samples do not meet.
    Source: TRELLIS (arXiv 2412.01506), `SLatMeshDecoder`; differences: extraction is a representation's. For the same levels with
        pruning see `voxgen.layers.SelfPruningUpsampler`.
    Cost: 64 cells of the finest level for each of the latent, whether the surface touches them or not.
    Example:
        >>> decoder = build("trellis/mesh-decoder", model_channels=128, num_blocks=1, num_heads=4, use_fp16=False)
        >>> cubes = decoder(z)                                            # z: SparseTensor of 8 channels
        >>> cubes.channels, len(cubes) // len(z)
        (101, 64)
    """

    def __init__(self, config: SLatConfig, widths: Sequence[int] = (192, 96), *, num_groups: int = 32) -> None:
        super().__init__(config)
        levels = (config.model_channels, *widths)
        self.widths = tuple(widths)
        self.upsample = nn.ModuleList(
            NearestUpsample(a, b, norm="group", num_groups=num_groups, checkpoint=config.use_checkpoint) for a, b in pairwise(levels)
        )
        self.out_layer = nn.Linear(levels[-1], config.out_channels)
        self.finish(self.out_layer, self.upsample)

    def forward(self, z: SparseTensor) -> SparseTensor:
        """Latents (n cells, in_channels), not normalised → raw numbers (8^levels · n, out_channels) of the finest level's cubes."""
        h = self.run_torso(z)
        for level in self.upsample:
            h = level(h, Structure.of_mask(h.grid))
        return h.with_feats(self.out_layer(h.feats.to(self.out_layer.weight.dtype)))
