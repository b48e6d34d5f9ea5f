"""StructureVAE: which cells of a coarse cube are occupied, as a small dense latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import VoxelGrid
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError

from .decoder import StructureDecoder
from .encoder import StructureEncoder
from .posterior import DensePosterior

__all__ = ["StructureVAE", "occupied_cells"]

LOGVAR_RANGE = (-30.0, 20.0)


class StructureVAE(nn.Module):
    """Autoencoder of dense occupancy; the first stage of a generator makes its latents, and the cells that they decode to
    are the tokens of the next.

    Args:
        encoder, decoder: of equal latent width and number of levels.
        latents_scale, latents_shift: latents z of the flow are decoded as z / latents_scale + latents_shift.
    Parameters: `encoder.*`, `decoder.*`.
    Raises:
        RangeError: a scale of 0.
    Source: Direct3D-S2's dense VAE (64³ cells to 8 × 16³; occupancy is mapped to −1 and 1); differences: the encoder works in
        half precision too, where the original stops with an error; several samples keep their number in `occupied_cells`.
    Example:
        >>> vae = build("direct3d-s2/dense-vae", model_channels_encoder=(8, 16), model_channels_decoder=(16, 8), use_fp16=False)
        >>> posterior = vae.encode(torch.rand(1, 1, 16, 16, 16) > 0.9)
        >>> occupied_cells(vae.decode(posterior.mean)).resolution
        (16, 16, 16)
    """

    def __init__(
        self, encoder: StructureEncoder, decoder: StructureDecoder, *, latents_scale: float = 1.0, latents_shift: float = 0.0
    ) -> None:
        super().__init__()
        if latents_scale == 0:
            raise RangeError("StructureVAE: latents_scale must not be 0, since latents are divided by it.")
        self.encoder = encoder
        self.decoder = decoder
        self.latents_scale = latents_scale
        self.latents_shift = latents_shift

    def description(self) -> dict[str, Any]:
        """The configuration in plain values; `save_pretrained` writes it."""
        return {
            "encoder": self.encoder.description(),
            "decoder": self.decoder.description(),
            "latents_scale": self.latents_scale,
            "latents_shift": self.latents_shift,
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> StructureVAE:
        """The inverse of `description`, with fresh weights."""
        encoder = StructureEncoder.from_description(values["encoder"])
        decoder = StructureDecoder.from_description(values["decoder"])
        return cls(encoder, decoder, latents_scale=values["latents_scale"], latents_shift=values["latents_shift"])

    def encode(self, occupancy: Bool[Tensor, "b 1 x y z"] | Float[Tensor, "b 1 x y z"]) -> DensePosterior:
        """Occupancy of cells to the posterior of the latent.

        Args:
            occupancy: (b, 1, x, y, z) bool, or floats from 0 to 1 in the dtype wanted of the result (half floats, too).
        Returns:
            Mean and log variance, the latter clamped to [−30, 20]; float32 for booleans. Differentiable.
        Raises:
            ShapeError, DtypeError: another shape or dtype, or sides that do not halve at each level.
        """
        require_tensor("StructureVAE.encode", "occupancy", occupancy, ("b", self.encoder.in_channels, "x", "y", "z"), (torch.bool, *FLOATS))
        values = occupancy.float() if occupancy.dtype == torch.bool else occupancy
        posterior = self.encoder(2 * values - 1)
        return DensePosterior(posterior.mean, posterior.logvar.clamp(*LOGVAR_RANGE))

    def decode(self, z: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b 1 x2 y2 z2"]:
        """Latents of the flow to logits of occupancy. Differentiable.

        Raises:
            ShapeError, DtypeError: another width or dtype.
        """
        return self.decoder(z * (1 / self.latents_scale) + self.latents_shift)

    def forward(
        self, occupancy: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> tuple[Float[Tensor, "b 1 x y z"], DensePosterior]:
        """A training pass: logits of a sample of the posterior, and the posterior."""
        posterior = self.encode(occupancy)
        z = (posterior.sample(generator, noise) - self.latents_shift) * self.latents_scale
        return self.decode(z), posterior


def occupied_cells(logits: Float[Tensor, "b 1 x y z"], threshold: float = 0.5) -> VoxelGrid:
    """Cells whose probability is at least a threshold.

    Args:
        logits: (b, 1, x, y, z) floats, as `StructureVAE.decode` gives them.
        threshold: probability from 0 to 1. Direct3D-S2 samples with 0.1, TRELLIS with 0.5.
    Returns:
        A grid of b samples, empty ones included, at the resolution of the logits.
    Raises:
        ShapeError, DtypeError: other logits.   RangeError: a threshold outside 0 to 1.
    Source: Direct3D-S2's index extraction; differences: one batch, where the original has a list with 0 in every batch column.
    Numerics: sigmoid in float32; a probability equal to the threshold counts. NaN is empty.
    Example:
        >>> len(occupied_cells(torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 2, 2)))
        3
    """
    where = "occupied_cells"
    require_tensor(where, "logits", logits, ("b", 1, "x", "y", "z"), FLOATS)
    if not 0 <= threshold <= 1:
        raise RangeError(f"{where}: threshold must be a probability from 0 to 1; got {threshold}.")
    mask = logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)).sigmoid() >= threshold
    x, y, z = mask.shape[1:]
    grid, _ = VoxelGrid.build(mask.nonzero().int(), resolution=(x, y, z), batch_size=len(mask))
    return grid
