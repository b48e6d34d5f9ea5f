"""Decoders of structured latents: to Gaussians, and to the raw cubes of a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.errors import ShapeError
from voxgen.layers import GaussianHead, LayerNorm32, NearestUpsample
from voxgen.ops.resample import Structure
from voxgen.representations import GaussianActivation, GaussianSplats, SparseFlex

from .config import SLatConfig
from .torso import SLatTorso

__all__ = ["MESH_CHANNELS", "SLatGaussianDecoder", "SLatMeshDecoder"]

FLEX_CHANNELS = 53
"""Raw numbers of a cube: 8 distances and 24 displacements of corners, 21 weights of FlexiCubes."""
MESH_CHANNELS = FLEX_CHANNELS + 48
"""With colours: six more numbers for each of the 8 corners."""


class SLatGaussianDecoder(SLatTorso):
    """The Gaussian decoder of TRELLIS: latent → Gaussians of each cell.

    Args:
        config: see `SLatConfig`; out_channels is 14 times the Gaussians a cell.
        activation: how raw channels become Gaussians; None takes TRELLIS' with as many Gaussians as out_channels have.
    Parameters: as `SLatTorso`, and out_layer.linear (C → 14 n), zero at first. Buffer: out_layer.offset_perturbation (n, 3).
    Raises:
        ShapeError: out_channels that are no multiple of 14, or another number than the activation's. By `forward`, as `SLatEncoder`.
    Numerics, batch: as `SLatEncoder`.
    Source: TRELLIS (arXiv 2412.01506), `SLatGaussianDecoder`; differences: `forward` gives raw channels, which `splats` activates.
    Example:
        >>> decoder = build("trellis/gaussian-decoder", model_channels=48, num_blocks=1, num_heads=4, use_fp16=False)
        >>> decoder(z).channels                                           # z: SparseTensor of 8 channels
        448
        >>> len(decoder.splats(z)) == 32 * len(z)
        True
    """

    def __init__(self, config: SLatConfig, activation: GaussianActivation | None = None) -> None:
        super().__init__(config)
        count, rest = divmod(config.out_channels, GaussianHead.WIDTH)
        self.activation = GaussianActivation(max(count, 1)) if activation is None else activation
        if rest or self.activation.count != count:
            raise ShapeError(
                f"SLatGaussianDecoder: out_channels must be {GaussianHead.WIDTH} for each of the activation's {self.activation.count} "
                f"Gaussians; got {config.out_channels}."
            )
        self.out_norm = LayerNorm32(config.model_channels, affine=False, eps=1e-5)
        self.out_layer = GaussianHead(
            config.model_channels, count, voxel_size=self.activation.voxel_size, perturb_offset=self.activation.perturb_offset
        )
        self.finish(self.out_layer.linear)

    def description(self) -> dict[str, Any]:
        """Configuration and activation in plain values."""
        return {**super().description(), "activation": dataclasses.asdict(self.activation)}

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SLatGaussianDecoder:
        """The inverse of `description`, with fresh weights."""
        fields = dict(values)
        activation = GaussianActivation(**fields.pop("activation"))
        return cls(SLatConfig(**fields), activation)

    def splats(self, z: SparseTensor) -> GaussianSplats:
        """Latents, not normalised → activated Gaussians: those of cell r are rows r g to r g + g − 1."""
        raw = self(z)
        return GaussianSplats.from_features(raw.grid, raw.feats, self.activation, offset_perturbation=self.out_layer.offset_perturbation)

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
    Source: TRELLIS (arXiv 2412.01506), `SLatMeshDecoder`; differences: `forward` gives raw numbers, which `flex` activates; colours
        are left raw, channels 53 to 100. For the same levels with pruning see `voxgen.layers.SelfPruningUpsampler`.
    Cost: 64 cells of the finest level for each of the latent, whether the surface touches them or not.
    Example:
        >>> decoder = build("trellis/mesh-decoder", model_channels=256, num_blocks=1, num_heads=4, use_fp16=False)
        >>> cubes = decoder(z)                                            # z: SparseTensor of 8 channels
        >>> cubes.channels, len(cubes) // len(z)
        (101, 64)
    """

    def __init__(self, config: SLatConfig, widths: Sequence[int] = (192, 96), *, num_groups: int = 32) -> None:
        super().__init__(config)
        levels = (config.model_channels, *widths)
        self.widths = tuple(widths)
        self.num_groups = num_groups
        self.upsample = nn.ModuleList(
            NearestUpsample(a, b, norm="group", num_groups=num_groups, checkpoint=config.use_checkpoint) for a, b in pairwise(levels)
        )
        self.out_layer = nn.Linear(levels[-1], config.out_channels)
        self.finish(self.out_layer, self.upsample)

    def description(self) -> dict[str, Any]:
        """Configuration and levels in plain values."""
        return {**super().description(), "widths": list(self.widths), "num_groups": self.num_groups}

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SLatMeshDecoder:
        """The inverse of `description`, with fresh weights."""
        fields = dict(values)
        widths, groups = fields.pop("widths"), fields.pop("num_groups")
        return cls(SLatConfig(**fields), widths, num_groups=groups)

    def forward(self, z: SparseTensor) -> SparseTensor:
        """Latents (n cells, in_channels), not normalised → raw numbers (8^levels · n, out_channels) of the finest level's cubes."""
        h = self.run_torso(z)
        for level in self.upsample:
            h = level(h, Structure.of_mask(h.grid))
        return h.with_feats(self.out_layer(h.feats.to(self.out_layer.weight.dtype)))

    def flex(self, z: SparseTensor) -> SparseFlex:
        """Latents, not normalised → the surface's field on the finest level's cubes; `to_mesh` extracts it.

        Raises:
            ShapeError: fewer than 53 out_channels.
        """
        raw = self(z)
        return SparseFlex.from_features(raw.grid, raw.feats[:, :FLEX_CHANNELS], compat="trellis")
