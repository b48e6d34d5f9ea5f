"""TextureVAE: image features on surface cells → latent → Gaussians on cells several levels finer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import MaskGenerator, MaskPrediction
from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_choice, require_tensor
from voxgen.core.errors import RangeError
from voxgen.layers import DiagonalGaussian
from voxgen.layers._anchoring_upsampler import MaskSource
from voxgen.models.slat import SLatEncoder
from voxgen.ops.resample import Structure
from voxgen.representations import GaussianSplats

from .config import TextureVAEConfig
from .decoder import TextureDecoder

__all__ = ["DecodedTexture", "TextureVAE"]


@dataclass(frozen=True, eq=False)
class DecodedTexture:
    """What a decode gives.

    Attributes:
        features: (m cells, c) on the finest level, for `TextureDecoder.gaussians` on any selection of the cells.
        splats: the Gaussians of all cells, one object a sample; None where they were not wanted.
        structures: one a level, coarse → fine: the cells that were made.
        mask: what the mask generator said, where it was asked: logits for `voxgen.losses.mask_bce`, targets by
            `voxgen.attention.mask_targets`.
    """

    features: SparseTensor
    splats: GaussianSplats | None
    structures: tuple[Structure, ...]
    mask: MaskPrediction | None = None


class TextureVAE(nn.Module):
    """The texture autoencoder of Sparse-Up, on TRELLIS' codec.

    Encoder: features of views gathered on a surface's cells (`surface_features`), and the numbers of the surface inside each
    (`surface_channels`). Decoder: a transformer at the latent's level, then surface-anchoring upsampling: at each level only the cells
    that the mask keeps get features. The mask is the true one in training and wherever a mesh is given, and the mask generator's
    otherwise; that is a network of its own, with its own weights (`vae.mask`), trained beside or alone.

    Args:
        config: see `TextureVAEConfig`.
    Parameters: encoder.* as `SLatEncoder`, decoder.* as `TextureDecoder`, mask.* as `MaskGenerator`, its thresholds among them.
    Batch: samples do not meet; empty samples and grids are legal.
    Source: Sparse-Up: learnable sparse upsampling for 3D generation with high-fidelity textures (Xiao et al.), which states no widths, no
        inputs of the mask and no thresholds; the numbers of the surface are an addition, without which the mask keeps half as many cells
        again. TRELLIS (arXiv 2412.01506): `voxgen.models.checkpoints.load_trellis` fills `vae.encoder` where it has no
        geometry_channels.
    Example:
        >>> config = TextureVAEConfig(resolution=16, feature_channels=24, model_channels=48, num_blocks=1, num_heads=4, mask_blocks=1,
        ...     widths=(24, 16), num_gaussians=2)
        >>> vae = TextureVAE(config)
        >>> channels = surface_channels(mesh, 16)
        >>> steps = level_structures(surface_grid(mesh, 64), 2)
        >>> posterior = vae.encode(channels.with_feats(torch.zeros(len(channels), 24)), channels.feats)
        >>> decoded = vae.decode(posterior.mean, structures=steps)        # the cells of the mesh
        >>> len(decoded.splats) == 2 * len(steps[-1].children)
        True
        >>> free = vae.decode(posterior.mean)                             # those that the mask generator keeps
    """

    def __init__(self, config: TextureVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SLatEncoder(config.encoder())
        self.decoder = TextureDecoder(config)
        self.mask = (
            MaskGenerator(
                config.latent_channels,
                model_channels=config.model_channels,
                num_blocks=config.mask_blocks,
                heads=config.num_heads,
                window=config.window_size,
                mlp_ratio=config.mlp_ratio,
                widths=config.widths[:-1],
                checkpoint=config.use_checkpoint,
            )
            if config.widths
            else None
        )

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> TextureVAE:
        """The inverse of `description`, with fresh weights."""
        return cls(TextureVAEConfig.from_json(values))

    def encode(self, features: SparseTensor, geometry: Float[Tensor, "n g"] | None = None) -> DiagonalGaussian:
        """Posterior of the latent.

        Args:
            features: (n cells, feature_channels) on the surface's cells at the latent's resolution.
            geometry: (n, geometry_channels) of the same cells, if and only if the network has them.
        Raises:
            RangeError: geometry missing or not wanted, a grid finer than the configuration's.   ShapeError, DtypeError, DeviceError:
            inputs that do not fit.
        """
        where, wanted = "TextureVAE.encode", self.config.geometry_channels
        if (geometry is None) != (wanted == 0):
            raise RangeError(f"{where}: geometry must be given if and only if the network has geometry_channels; it has {wanted}.")
        if geometry is None:
            return self.encoder(features)
        require_tensor(where, "geometry", geometry, (len(features), wanted), FLOATS, hint="One row for each cell of features.")
        return self.encoder(features.with_feats(torch.cat((features.feats, geometry.to(features.dtype)), 1)))

    def decode(
        self,
        z: SparseTensor,
        *,
        structures: Sequence[Structure] | None = None,
        source: MaskSource | None = None,
        predict: bool = False,
        splats: bool = True,
        union: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> DecodedTexture:
        """Gaussians of a latent.

        Args:
            z: (n cells, latent_channels), not normalised.
            structures: the true cells, coarse → fine (`voxgen.ops.candidates.level_structures`): no network decides then.
            source: "gt" needs structures; "predicted" asks the mask generator; "all" makes all children. None: the structures where they
                are given, else "predicted".
            predict: with structures: ask the mask generator too, for its loss. Its gradient reaches the encoder through z.
            splats: False leaves the head out, for pictures drawn tile by tile.
            union: with `predict`, as in `MaskGenerator.forward`: levels of the mask generator may see predicted cells too. The decoder
                always runs on the true ones.
            generator: draws for `union`.
        Raises:
            RangeError: a source that does not fit what is given.   ShapeError: another number of structures.
        """
        where = "TextureVAE.decode"
        chosen: MaskSource = ("predicted" if structures is None else "gt") if source is None else source
        require_choice(where, "source", chosen, ("gt", "predicted", "all"))
        if (chosen == "gt") != (structures is not None):
            raise RangeError(f"{where}: 'gt' needs structures, 'predicted' and 'all' have none; got {chosen!r}.")
        mask: MaskPrediction | None = None
        if self.mask is not None and (chosen == "predicted" or (predict and structures is not None)):
            mask = self.mask(z, structures=structures, union=union, generator=generator)
        if structures is None:
            structures = mask.structures if mask is not None else self._all(z)
        h = self.decoder(z, structures)
        return DecodedTexture(h, self.decoder.gaussians(h) if splats else None, tuple(structures), mask)

    def forward(
        self,
        features: SparseTensor,
        geometry: Float[Tensor, "n g"] | None = None,
        *,
        structures: Sequence[Structure] | None = None,
        noise: torch.Generator | None = None,
        union: float = 0.0,
    ) -> tuple[DecodedTexture, DiagonalGaussian]:
        """A training pass: a sample of the posterior decoded on the true cells, with the mask's logits; and the posterior."""
        posterior = self.encode(features, geometry)
        z = posterior.sample(noise)
        return self.decode(z, structures=structures, predict=True, union=union), posterior

    def _all(self, z: SparseTensor) -> tuple[Structure, ...]:
        """Every child of every cell, level by level."""
        grid, made = z.grid, []
        for _ in self.config.widths:
            made.append(Structure.of_mask(grid))
            grid = made[-1].children
        return tuple(made)
