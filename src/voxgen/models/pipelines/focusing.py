"""FocusingPipeline: picture → structure → latent → SparseFlex → mesh, open surfaces included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch

from voxgen.attention import Context
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, Sampler
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.sparse_flex_vae import SparseFlexDecoder
from voxgen.representations import SparseFlex

from .stages import Generators, StageCallback
from .two_stages import STAGES, TwoStagePipeline

__all__ = ["FocusingPipeline", "GeneratedSurface", "focusing_samplers"]


def focusing_samplers() -> dict[str, Sampler]:
    """TripoSF's 50 steps at its guidance 3.5, which is 4.5 here (1 + w), in both stages. Focusing states none."""
    return dict.fromkeys(STAGES, EulerSampler(50, guidance=ClassifierFreeGuidance(1 + 3.5)))


@dataclass(frozen=True, eq=False)
class GeneratedSurface:
    """What a generation gave; b objects in one batch.

    Attributes:
        structure: the cells of the first stage.
        latent: on them, not normalised.
        features: (m, 53) raw numbers on the cells that the decoder kept, four times as fine.
    """

    structure: VoxelGrid
    latent: SparseTensor
    features: SparseTensor

    @cached_property
    def flex(self) -> SparseFlex:
        """The field of the surfaces, held whole; `mesh` does without it."""
        return SparseFlex.from_features(self.features.grid, self.features.feats)

    @cached_property
    def mesh(self) -> TriMesh:
        """The surfaces in one mesh, a part for each object, extracted slab by slab."""
        return SparseFlex.mesh_from_features(self.features.grid, self.features.feats)

    @cached_property
    def meshes(self) -> tuple[TriMesh, ...]:
        """A mesh for each object."""
        return tuple(SparseFlex.mesh_from_features(part.grid, part.feats) for part in self.features.unbind())


@dataclass(frozen=True, eq=False)
class FocusingPipeline(TwoStagePipeline):
    """The two stages of Focusing, which are those of TripoSF, over networks of any size: meshes of any topology.

    Every stage is a method, and `generate` calls them in turn.

    Args:
        decoder: of the latent, to SparseFlex; `vae.decoder` of a `SparseFlexVAE`. The paper's latents have 128 or 256 cells a side.
        normalization: of the latents that the flow makes: `LatentNormalization.of(latents)`; the published autoencoder has none.
        samplers: by default `focusing_samplers`.
        position_factor: of the decoder's position code: 256 / resolution brings grids of all resolutions to the scale of TripoSF's
            released weights.
        structure_flow, structure_decoder, latent_flow, image_encoder, structure_normalization, system, up: see `TwoStagePipeline`.
    Raises: as `TwoStagePipeline`.
    Source: Focusing, on TripoSF (arXiv 2503.21732) and TRELLIS (arXiv 2412.01506): it states two stages "drawing from TRELLIS and
        TripoSF" and no sizes. Here: TRELLIS' stages on latents of the SparseFlex autoencoder, pictures prepared as TRELLIS does, and a
        decode that prunes. Differences: batches; an empty structure gives an empty result and a warning.
    Example:
        >>> pipeline = FocusingPipeline(flow, decoder, latent_flow, vae.decoder, normalization=measured)   # doctest: +SKIP
        >>> made = pipeline.generate(conditions=tokens, tile=32)                                           # doctest: +SKIP
        >>> voxgen.io.save_mesh(made.mesh, "shirt.glb")                                                    # doctest: +SKIP
    """

    kind: ClassVar[str] = "focusing"
    networks: ClassVar[Any] = {
        **TwoStagePipeline.networks,
        "decoder": SparseFlexDecoder,
    }

    decoder: SparseFlexDecoder
    samplers: Mapping[str, Sampler] = field(default_factory=focusing_samplers, kw_only=True)
    position_factor: float = field(default=1.0, kw_only=True)

    def latent_widths(self) -> dict[str, int]:
        """See `TwoStagePipeline`."""
        return {"decoder": self.decoder.config.latent_channels}

    @torch.no_grad()
    def decode(
        self, latent: SparseTensor, *, prune: bool | None = True, tile: int | None = None, progress: bool = False
    ) -> GeneratedSurface:
        """Latent → SparseFlex.

        Args:
            latent: not normalised.
            prune: whether cells that the decoder judges empty are left out, so that surfaces may be open; None: as it is configured.
            tile: decode the finer levels in cubes of this many latents a side, in memory that grows with a cube; see
                `SparseFlexDecoder.forward`, also for what group norms make of it.
            progress: show a bar of levels, or of cubes.
        Warns:
            EmptyResultWarning: an object that had cells keeps none.
        """
        found = self.decoder(latent, prune=prune, factor=self.position_factor, tile=tile, progress=progress)
        return GeneratedSurface(latent.grid, latent, found.features)

    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: Context | Mapping[str, Context] | None = None,
        samples: int = 1,
        prune: bool | None = True,
        tile: int | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> GeneratedSurface:
        """Picture → surface.

        Args:
            image: a picture, or a list of several.
            conditions: tokens (b, m, c) in place of a picture, for both stages or by stage.
            samples: objects of each picture; those of one stand side by side.
            prune, tile: see `decode`.
            generator: of all noise, structure first: one, or one for each of the b · samples objects.
            progress: show bars.
            callback: called after each step with the stage's name and the sampler's state.
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: neither a picture nor tokens, or both; a picture without an encoder.   Others as `prepare_image`.
        Warns:
            EmptyResultWarning: an object without an occupied cell, or of which the decoder keeps none; it is empty.
        """
        _, latent = self._generated(
            image,
            conditions,
            samples=samples,
            generator=generator,
            progress=progress,
            callback=callback,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )
        return self.decode(latent, prune=prune, tile=tile, progress=progress)
