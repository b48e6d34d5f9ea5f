"""SparseUpPipeline: picture → structure → texture latent → Gaussians; and the texture of a given mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from voxgen.attention import Context
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers._anchoring_upsampler import MaskSource
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.texture_vae import DecodedTexture, TextureVAE
from voxgen.ops.candidates import level_structures
from voxgen.ops.resample import Structure
from voxgen.ops.surface_cells import surface_grid
from voxgen.representations import GaussianSplats

from .conditions import stage_conditions
from .stages import Generators, StageCallback, warn_if_empty
from .two_stages import STAGES, TwoStagePipeline

__all__ = ["GeneratedTexture", "SparseUpPipeline"]


@dataclass(frozen=True, eq=False)
class GeneratedTexture:
    """What a generation gave; b objects in one batch.

    Attributes:
        structure: the cells of the latent.
        latent: on them, not normalised.
        decoded: cells and features of the finest level, and what the mask generator said.
        splats: Gaussians of all objects (`splats.sample(i)` is one).
    """

    structure: VoxelGrid
    latent: SparseTensor
    decoded: DecodedTexture
    splats: GaussianSplats


@dataclass(frozen=True, eq=False)
class SparseUpPipeline(TwoStagePipeline):
    """The stages of Sparse-Up over networks of any size: Gaussians on cells several levels finer than the structure.

    Every stage is a method; `generate` calls them in turn, and `texture_mesh` those that a known mesh leaves.

    Args:
        vae: its decoder and mask generator are used.
        structure_flow, structure_decoder: may be None, where only meshes are textured.
        latent_flow: usually a `PatchedLatentFlow`, which brings the transformer to a coarser grid: one stage (patch 2) for latents of 64
            cells a side, two (patch 4) for 128.
        normalization: of the latents that the flow makes: `LatentNormalization.of(latents)`.
        samplers, image_encoder, structure_normalization, system, up: see `TwoStagePipeline`; samplers are TRELLIS' by default.
    Raises: as `TwoStagePipeline`; ShapeError: a flow of another resolution than the autoencoder's.
    Source: Sparse-Up (Xiao et al.), which states its codec and no generator ("Texture-DiT"): the stages are TRELLIS' (arXiv 2412.01506) on
        latents of the texture autoencoder. Differences: where a mesh is given its own cells are decoded, and no network decides which.
    Example:
        >>> pipeline = SparseUpPipeline(None, None, latent_flow, vae, normalization=measured)              # doctest: +SKIP
        >>> made = pipeline.texture_mesh(mesh, conditions=tokens)                                          # doctest: +SKIP
        >>> made.splats.save_ply("chair.ply")                                                              # doctest: +SKIP
    """

    kind: ClassVar[str] = "sparse-up"
    networks: ClassVar[Any] = {
        **TwoStagePipeline.networks,
        "vae": TextureVAE,
    }

    vae: TextureVAE

    def __post_init__(self) -> None:
        super().__post_init__()
        side, own = self.latent_flow.resolution, self.vae.config.resolution
        if side != own:
            raise ShapeError(f"SparseUpPipeline: latent_flow must be made for the autoencoder's {own} cells along a side; got {side}.")

    def latent_widths(self) -> dict[str, int]:
        """See `TwoStagePipeline`."""
        return {"vae": self.vae.config.latent_channels}

    @torch.no_grad()
    def decode(
        self, latent: SparseTensor, *, structures: Sequence[Structure] | None = None, source: MaskSource | None = None
    ) -> GeneratedTexture:
        """Latent → Gaussians.

        Args:
            latent: not normalised.
            structures: the cells of each finer level, coarse → fine, where they are known (`level_structures`).
            source: what decides which cells there are; None: the structures, or else the mask generator. "all" makes all children.
        Raises:
            RangeError: a source that does not fit what is given.   ShapeError: another number of structures.
        """
        features = self.vae.decode(latent, structures=structures, source=source, splats=False)
        splats = self.vae.decoder.gaussians(features.features)
        return GeneratedTexture(latent.grid, latent, features, splats)

    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: Context | Mapping[str, Context] | None = None,
        samples: int = 1,
        source: MaskSource | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> GeneratedTexture:
        """Picture → Gaussians.

        Args:
            image: a picture, or a list of several.
            conditions: tokens (b, m, c) in place of a picture, for both stages or by stage.
            samples: objects of each picture; those of one stand side by side.
            source: "predicted" (also None) or "all", see `decode`.
            generator: of all noise, structure first: one, or one for each of the b · samples objects.
            progress: show bars.
            callback: called after each step with the stage's name and the sampler's state.
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: neither a picture nor tokens, or both; a picture without an encoder; a pipeline without the first stage.
            Others as `prepare_image`.
        Warns:
            EmptyResultWarning: an object without an occupied cell; it is empty.
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
        return self.decode(latent, source=source)

    def texture_mesh(
        self,
        mesh: TriMesh | Sequence[TriMesh],
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: Context | Mapping[str, Context] | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> GeneratedTexture:
        """A mesh and a picture of how it should look → Gaussians on its surface, in its world.

        Args:
            mesh: in the unit cube [−½, ½]³ (`fit_unit_cube`) with the pipeline's axis up (`with_up`); or one for each picture.
            image, conditions: as in `generate`.
            samples: textures of each mesh; those of one stand side by side.
            generator: of the latent's noise: one, or one for each texture.
            progress, callback, remove_background, assume_foreground: as in `generate`.
        Raises:
            RangeError: another axis up; as `generate`.   ShapeError: as many meshes as pictures are needed.   FrameError, MeshError: a
            mesh outside the cube, or one that cannot be used.
        Warns:
            EmptyResultWarning: a mesh without area.
        """
        where = "SparseUpPipeline.texture_mesh"
        meshes = [mesh] if isinstance(mesh, TriMesh) else list(mesh)
        structures = self.mesh_structures(meshes, require_int(where, "samples", samples, 1))
        tokens = stage_conditions(
            where,
            STAGES[1:],
            image,
            conditions,
            self.image_encoder,
            self.system,
            samples=samples,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )["latent"]
        if len(tokens) != len(meshes) * samples:
            raise ShapeError(f"{where}: one picture is needed for each of {len(meshes)} meshes; got {len(tokens) // samples}.")
        grid = structures[0].parents if structures else self._cells(meshes, samples)
        warn_if_empty(where, grid, hint="Give a mesh with area.")
        own = None if callback is None else partial(callback, STAGES[1])
        latent = self.sample_latent(grid, tokens, generator=generator, progress=progress, callback=own)
        return self.decode(latent, structures=structures)

    def mesh_structures(self, meshes: Sequence[TriMesh], samples: int = 1) -> tuple[Structure, ...]:
        """The cells that meshes touch, level by level, coarse → fine, each mesh `samples` times in a row.

        structures[0].parents are the cells of the latent.
        """
        return level_structures(self._cells(meshes, samples), len(self.vae.config.widths)) if self.vae.config.widths else ()

    def _cells(self, meshes: Sequence[TriMesh], samples: int) -> VoxelGrid:
        """Of the finest level."""
        where = "SparseUpPipeline.texture_mesh"
        if not meshes:
            raise RangeError(f"{where}: at least one mesh is needed; got none.")
        for given in meshes:
            if not isinstance(given, TriMesh):
                raise DtypeError(f"{where}: mesh must be a TriMesh, or a list of them; got {describe(given)}.")
            if given.up != self.up:
                raise RangeError(
                    f"{where}: mesh must have {self.up!r} up as the pipeline; got {given.up!r}. Turn it: mesh.with_up({self.up!r})."
                )
        device = self.latent_flow.input_layer.weight.device
        cells = [surface_grid(given, self.vae.config.finest) for given in meshes]
        return VoxelGrid.batched([grid for grid in cells for _ in range(samples)]).to(device)
