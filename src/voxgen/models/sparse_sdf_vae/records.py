"""What encoding and decoding give."""

from __future__ import annotations

from dataclasses import dataclass

from voxgen.core import SparseTensor
from voxgen.models.sc_vae import Latent
from voxgen.ops.resample import Structure
from voxgen.representations import SparseSDF

__all__ = ["DecodedSDF", "SDFLatent"]


@dataclass(frozen=True, eq=False)
class SDFLatent(Latent):
    """What `SparseSDFVAE.encode` gives.

    Attributes:
        z, posterior, structures, normalization, normalized: as `Latent`.
        band: of the encoded SDF in cells: what a decoded value of 1 means.
        signed: whether it has a side.
    """

    band: float = 4.0
    signed: bool = True


@dataclass(frozen=True, eq=False)
class DecodedSDF:
    """What a decode gives.

    Attributes:
        values: (n, 1) distances over the band, in [−1, 1], negative inside, on the finest grid.
        structures: one a step, coarse → fine: which children were made.
        logits: one a step, (p, 8), of a decoder with early pruning; targets for them are `structure.mask()`.
        features: (n, c) before the last layer, where they were asked for.
        band: half-width of the band in cells.
        signed: whether distances have a side.
    """

    values: SparseTensor
    structures: tuple[Structure, ...]
    logits: tuple[SparseTensor, ...] = ()
    features: SparseTensor | None = None
    band: float = 4.0
    signed: bool = True

    @property
    def sdf(self) -> SparseSDF:
        """Distances in cells, to extract, save or resample. Differentiable.

        Without early pruning it holds every child of every cell of the latent, most of which lie at the band's edge and count as
        far. Raises ShapeError where the decoder has more than one channel.
        """
        return SparseSDF.from_normalized(self.values, self.band, self.signed)
