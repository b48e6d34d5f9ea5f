"""SCVAE: encoder and decoder of O-Voxels, for shapes or for materials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import describe, require_finite, require_int3
from voxgen.core.coords import MAX_RESOLUTION, check_coords
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import DiagonalGaussian
from voxgen.ops.resample import Structure
from voxgen.representations import OVoxel

from ._outputs import DecoderOutput
from .content import Content, content_from_json
from .decoder import SCDecoder
from .encoder import SCEncoder
from .latents import LatentNormalization
from .tiling import Tiling

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Latent:
    """What `SCVAE.encode` gives.

    Attributes:
        z: (n, c) the latent that a decoder reads: the posterior's mean, or a sample of it. Not normalised.
        posterior: mean and log variance.
        structures: the encoder's levels, coarse → fine. A decode uses them only where they are given to it by name.
        normalization: of z, or None where the autoencoder has none.
    """

    z: SparseTensor
    posterior: DiagonalGaussian
    structures: tuple[Structure, ...]
    normalization: LatentNormalization | None = None

    @property
    def normalized(self) -> SparseTensor:
        """z as generators make it.

        Raises:
            RangeError: the autoencoder has no normalisation.
        """
        if self.normalization is None:
            raise RangeError("Latent.normalized: the autoencoder has no normalisation; give SCVAE one (LatentNormalization).")
        return self.normalization.normalize(self.z)


class SCVAE(nn.Module, Generic[R]):
    """The sparse compression autoencoder of TRELLIS.2: O-Voxel → latent on a grid 2^steps as coarse → O-Voxel.

    Args:
        encoder: see `SCEncoder`.
        decoder: see `SCDecoder`; its latent_channels and number of steps must be the encoder's.
        content: `ShapeContent` or `MaterialContent`: what the features mean.
        normalization: of the latents, for generators; None if there is none yet.
    Raises:
        RangeError: encoder, decoder, content and normalisation that do not fit each other.
    Parameters: encoder.*, decoder.*.
    Batch: an O-Voxel with several samples goes through as one ragged batch; samples do not influence each other.
    Source: Native and Compact Structured Latents for 3D Generation. Differences: a decode predicts the structure unless one is
        given; the resolution is the grid's; an empty level gives an empty O-Voxel and a warning in place of an error.
    Example:
        >>> vae = voxgen.models.build("voxgen/shape-vae-small")
        >>> latent = vae.encode(OVoxel.from_mesh(mesh, resolution=32, materials=False))
        >>> latent.z.grid.resolution
        (8, 8, 8)
        >>> predicted = vae.decode(latent).ovoxel                                # honest: predicted structure
        >>> given = vae.decode(latent, structure=latent.structures).ovoxel      # as in training
        >>> given.resolution
        (32, 32, 32)
    """

    def __init__(
        self, encoder: SCEncoder, decoder: SCDecoder, content: Content[R], normalization: LatentNormalization | None = None
    ) -> None:
        super().__init__()
        _require_fit(encoder, decoder, content, normalization)
        self.encoder = encoder
        self.decoder = decoder
        self.content = content
        self.normalization = normalization

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        n = self.normalization
        return {
            "encoder": self.encoder.description(),
            "decoder": self.decoder.description(),
            "content": self.content.to_json(),
            "normalization": None if n is None else {"mean": n.mean, "std": n.std},
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SCVAE[Any]:
        """The inverse of `description`, with fresh weights."""
        encoder = SCEncoder.from_description(values["encoder"])
        decoder = SCDecoder.from_description(values["decoder"])
        normalization = None if values["normalization"] is None else LatentNormalization(**values["normalization"])
        return cls(encoder, decoder, content_from_json(values["content"]), normalization)

    def encode(self, ovoxel: OVoxel, *, sample: bool = False, generator: torch.Generator | None = None) -> Latent:
        """O-Voxel → latent.

        Args:
            ovoxel: one sample or a batch, on the encoder's device. Dual vertices in [0, 1], as `OVoxel.from_mesh` makes them.
            sample: draw z from the posterior, as in training; otherwise z is its mean.
            generator: of the noise.
        Raises:
            RangeError: NaN or infinity; materials that are missing or in another colour space; a generator without `sample`.
            DtypeError, DeviceError: fields that do not fit the encoder.
        An empty O-Voxel has an empty latent.
        """
        if not isinstance(ovoxel, OVoxel):
            raise DtypeError(f"SCVAE.encode: the input must be an OVoxel; got {describe(ovoxel)}. Batches: OVoxel.batched.")
        if generator is not None and not sample:
            raise RangeError("SCVAE.encode: a generator has no effect without sample=True; leave it out.")
        encoded = self.encoder(self.content.read(ovoxel))
        z = encoded.posterior.sample(generator) if sample else encoded.posterior.mode
        return Latent(z, encoded.posterior, encoded.structures, self.normalization)

    def decode(
        self,
        latent: Latent | SparseTensor,
        *,
        structure: Sequence[Structure] | None = None,
        guide: Sequence[Tensor | SparseTensor] | None = None,
        resolution: int | Int3 | None = None,
        tiling: Tiling | None = None,
        progress: bool = False,
    ) -> R:
        """Latent → shape or materials.

        Args:
            latent: what `encode` gave, or a latent (not normalised) on its grid.
            structure, guide, tiling, progress: see `SCDecoder.forward`. Without structure and guide the cells are predicted, also
                where the latent came from `encode`.
            resolution: cells an axis of the result, which then fills the cube [-0.5, 0.5]³; None takes 2^steps times the
                latent's grid in its frame. (The original's `set_resolution`.)
        Returns:
            `DecodedShape` or `DecodedMaterials`, by `content`.
        Raises:
            RangeError: a latent with NaN or infinity, a resolution that leaves cells out, and as `SCDecoder.forward`.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none.
        """
        z = latent.z if isinstance(latent, Latent) else latent
        if not isinstance(z, SparseTensor):
            raise DtypeError(f"SCVAE.decode: latent must be what encode gives, or a SparseTensor; got {describe(z)}.")
        require_finite("SCVAE.decode", "latent", z.feats)
        output = self.decoder(z, structure=structure, guide=guide, tiling=tiling, progress=progress)
        if resolution is not None:
            grid = _placed(output.head.grid, require_int3("SCVAE.decode", "resolution", resolution, 1, MAX_RESOLUTION))
            output = DecoderOutput(SparseTensor(grid, output.head.feats), output.logits, output.structures)
        return self.content.result(output)

    def forward(self, ovoxel: OVoxel, *, sample: bool = True, generator: torch.Generator | None = None) -> tuple[R, Latent]:
        """Encode, and decode on the encoder's structure: what training needs. The targets of the logits are
        `structure.mask()` of the latent's structures."""
        latent = self.encode(ovoxel, sample=sample, generator=generator)
        return self.decode(latent, structure=latent.structures), latent


def _placed(grid: VoxelGrid, resolution: Int3) -> VoxelGrid:
    check_coords("SCVAE.decode: resolution too low", grid.coords, resolution)
    return VoxelGrid.from_sorted(
        grid.coords, resolution=resolution, batch_size=grid.batch_size, frame=Frame.unit(resolution, grid.frame.up)
    )


def _require_fit(encoder: SCEncoder, decoder: SCDecoder, content: Content, normalization: LatentNormalization | None) -> None:
    pairs = [
        ("encoder's in_channels", encoder.config.in_channels, "content's", content.in_channels),
        ("decoder's out_channels", decoder.config.out_channels, "content's", content.out_channels),
        ("decoder's latent_channels", decoder.config.latent_channels, "encoder's", encoder.config.latent_channels),
        ("decoder's number of levels", decoder.config.num_levels, "encoder's", encoder.config.num_levels),
    ]
    for name, value, other, wanted in pairs:
        if value != wanted:
            raise ShapeError(f"SCVAE: the {name} must be the {other}, {wanted}; got {value}.")
    if normalization is not None and normalization.channels != encoder.config.latent_channels:
        raise ShapeError(
            f"SCVAE: the normalisation must have the latent's {encoder.config.latent_channels} channels; it has "
            f"{normalization.channels}. Pass normalization=None, or your own constants."
        )
