"""SparseSDFVAE: encoder and decoder of signed distances in a narrow band."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import describe, require_finite
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models.sc_vae import LatentNormalization
from voxgen.ops.distance_band import require_band
from voxgen.ops.resample import Structure
from voxgen.representations import SparseSDF

from .decoder import SparseSDFDecoder
from .encoder import SparseSDFEncoder
from .records import DecodedSDF, SDFLatent

__all__ = ["SparseSDFVAE"]


class SparseSDFVAE(nn.Module):
    """The sparse SDF autoencoder (SS-VAE) of Direct3D-S2: distances near a surface → latent on a grid an eighth as fine → distances.

    Args:
        encoder: see `SparseSDFEncoder`.
        decoder: see `SparseSDFDecoder`; its latent_channels must be the encoder's.
        normalization: of the latents, for generators; None if there is none yet. Direct3D-S2's latents_scale and latents_shift
            are std = 1 / scale and mean = shift of every channel.
        tile: side of the cubes of a decode in cells of the latent, where `decode` is not told; None decodes the whole at once.
    Parameters: encoder.*, decoder.*.
    Raises:
        ShapeError: encoder, decoder and normalisation that do not fit each other.   RangeError: a tile below 1.
    Batch: an SDF with several samples goes through as one ragged batch; samples do not influence each other.
    Source: Direct3D-S2 (arXiv 2505.17412), SS-VAE. Differences: decodes may follow a structure or predict it (early pruning);
        several samples and tiles go together; every cell comes once. With the released weights every cell of the latent has 512
        cells, and nothing decides which survive: extraction reads them all (`DecodedSDF.sdf`, `SparseSDF.to_mesh`).
    Example:
        >>> vae = voxgen.models.build("voxgen/sdf-vae-small")
        >>> latent = vae.encode(SparseSDF.from_mesh(mesh, resolution=32))
        >>> latent.z.grid.resolution
        (4, 4, 4)
        >>> given = vae.decode(latent, structure=latent.structures)              # the cells that were encoded
        >>> given.sdf.resolution
        (32, 32, 32)
        >>> len(vae.decode(latent).values) == 512 * len(latent.z)               # every child of every cell
        True
    """

    def __init__(
        self,
        encoder: SparseSDFEncoder,
        decoder: SparseSDFDecoder,
        normalization: LatentNormalization | None = None,
        *,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        channels = encoder.config.latent_channels
        if decoder.config.latent_channels != channels:
            raise ShapeError(
                f"SparseSDFVAE: the decoder's latent_channels must be the encoder's, {channels}; got {decoder.config.latent_channels}."
            )
        if normalization is not None and normalization.channels != channels:
            raise ShapeError(f"SparseSDFVAE: the normalisation must have {channels} channels; it has {normalization.channels}.")
        if tile is not None and tile < 1:
            raise RangeError(f"SparseSDFVAE: tile must be at least 1, or None; got {tile}.")
        self.encoder = encoder
        self.decoder = decoder
        self.normalization = normalization
        self.tile = tile

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        n = self.normalization
        return {
            "encoder": self.encoder.description(),
            "decoder": self.decoder.description(),
            "normalization": None if n is None else {"mean": n.mean, "std": n.std},
            "tile": self.tile,
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SparseSDFVAE:
        """The inverse of `description`, with fresh weights."""
        encoder = SparseSDFEncoder.from_description(values["encoder"])
        decoder = SparseSDFDecoder.from_description(values["decoder"])
        normalization = None if values["normalization"] is None else LatentNormalization(**values["normalization"])
        return cls(encoder, decoder, normalization, tile=values["tile"])

    def encode(self, sdf: SparseSDF, *, sample: bool = False, generator: torch.Generator | None = None, factor: float = 1.0) -> SDFLatent:
        """SDF → latent.

        Args:
            sdf: one sample or a batch, on the encoder's device. Its band is what ±1 means to the network, whatever its width.
            sample: draw z from the posterior, as in training; otherwise z is its mean.
            generator: of the noise.
            factor: by which the position code multiplies cell indices of the latent: 512 / resolution in training at several
                resolutions, 1 otherwise.
        Raises:
            RangeError: NaN or infinity; a generator without `sample`; a factor that is not positive.
            DtypeError, DeviceError: not an SDF, or elsewhere.
        An empty SDF has an empty latent.
        """
        where = "SparseSDFVAE.encode"
        if not isinstance(sdf, SparseSDF):
            raise DtypeError(f"{where}: the input must be a SparseSDF; got {describe(sdf)}. Batches: SparseSDF.batched.")
        if generator is not None and not sample:
            raise RangeError(f"{where}: a generator has no effect without sample=True; leave it out.")
        require_finite(where, "sdf", sdf.sdf_cells)
        encoded = self.encoder(sdf.normalized(), factor=factor)
        z = encoded.posterior.sample(generator) if sample else encoded.posterior.mode
        return SDFLatent(z, encoded.posterior, encoded.structures, self.normalization, sdf.band, sdf.signed)

    def decode(
        self,
        latent: SDFLatent | SparseTensor,
        *,
        structure: Sequence[Structure] | None = None,
        factor: float = 1.0,
        tile: int | None = None,
        features: bool = False,
        band: float | None = None,
        progress: bool = False,
    ) -> DecodedSDF:
        """Latent → distances.

        Args:
            latent: what `encode` gave, or a latent (not normalised) on its grid.
            structure: the cells to decode; without it a decoder with early pruning predicts them, and others make all children of
                every cell of the latent, also where the latent came from `encode`.
            factor: as in `encode`.
            tile, features, progress: see `SparseSDFDecoder.forward`; a tile of None takes the autoencoder's own.
            band: what a value of 1 means, in cells of the result; None takes the latent's, or 4.
        Raises:
            RangeError: a latent with NaN or infinity, and as `SparseSDFDecoder.forward`.   DtypeError: not a latent.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none.
        """
        where = "SparseSDFVAE.decode"
        z = latent.z if isinstance(latent, SDFLatent) else latent
        if not isinstance(z, SparseTensor):
            raise DtypeError(f"{where}: latent must be what encode gives, or a SparseTensor; got {describe(z)}.")
        require_finite(where, "latent", z.feats)
        known, signed = (latent.band, latent.signed) if isinstance(latent, SDFLatent) else (4.0, True)
        width = known if band is None else require_band(where, "band", band)
        chosen = self.tile if tile is None else tile
        decoded = self.decoder(z, structure=structure, factor=factor, tile=chosen, features=features, progress=progress)
        return dataclasses.replace(decoded, band=width, signed=signed)

    def forward(
        self, sdf: SparseSDF, *, sample: bool = True, generator: torch.Generator | None = None, factor: float = 1.0
    ) -> tuple[DecodedSDF, SDFLatent]:
        """Encode and decode, what training needs: with early pruning on the encoder's structure, otherwise with all children.

        Targets of the values are `sdf_targets(sdf, decoded.values.grid)`, of the logits `structure.mask()` of the latent's structures.
        """
        latent = self.encode(sdf, sample=sample, generator=generator, factor=factor)
        structure = latent.structures if self.decoder.config.early_pruning else None
        return self.decode(latent, structure=structure, factor=factor), latent
