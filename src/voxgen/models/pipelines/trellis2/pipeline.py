"""Trellis2Pipeline: picture → structure → shape latent → material latent → textured O-Voxel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from voxgen.attention import Context
from voxgen.core import TriMesh
from voxgen.core.errors import RangeError
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.pipelines.cascade import cascade_grid
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.pipelines.folder import PipelineFolder
from voxgen.models.pipelines.saving import SavedInFolder
from voxgen.models.pipelines.stages import Generators, StageCallback, warn_if_empty

from .conditions import Conditions, Use, tokens_of_uses
from .networks import Trellis2Stages
from .placement import placed
from .records import Generated, TexturedMesh

__all__ = ["Trellis2Pipeline"]


@dataclass(frozen=True, eq=False)
class Trellis2Pipeline(Trellis2Stages, SavedInFolder):
    """The three stages of TRELLIS.2 over networks of any size.

    Every stage is a method, and `generate` calls them in turn. Networks run where they are and as they are: move them to a device and
    call `.eval()` first, or use low_memory.

    Args:
        structure_flow, structure_decoder: of the occupancy of a coarse grid; of a `StructureVAE` its `decode`.
        shape_flows: a flow for each output resolution, such as {512: …, 1024: …}; each works on the grid of its `resolution`. A
            `LatentFlow`, as in the release, or a `PatchedLatentFlow`.
        shape_decoder: latent of a shape → O-Voxel.
        material_flows: by output resolution, with the normalised shape latent as further input; empty: shapes only.
        material_decoder: latent of materials → O-Voxel materials, guided by the shape's structure.
        shape_normalization, material_normalization: of the latents; by default the released constants.
        samplers: by stage, see `released_samplers`.
        materials: what the material decoder makes, in its order.
        shape_encoder: O-Voxel → latent of a shape, for `texture_mesh`.
        image_encoder: of pictures, one, or by stage ("structure", "shape", "material"); None: tokens only.
        image_sizes: side in pixels of the pictures for the flows of a resolution, such as {512: 512, 1024: 1024}, for an encoder that takes
            several; None: the encoder's.
        structure_normalization: of the latents that structure_flow makes; None where there is none, as in the release.
        up: the axis that points up in what the networks were trained on. The released ones have "z".
        split_weights: cut quads by the weights that the shape decoder predicts. False cuts them by angle: for decoders whose loss had no
            pictures of the surface, which are the only thing that trains these weights.
        low_memory: each network is moved to `device` only while it is used, and then back. Results are the same.
        device: where low_memory puts them.
    Raises:
        RangeError: no shape flow, material flows without a decoder, no sampler for a stage, low_memory without a device.   ShapeError:
        widths that do not fit each other.
    Source: TRELLIS.2 (arXiv 2512.14692), image-to-3D and texturing pipelines. Differences: no decimation or hole filling afterwards;
        several pictures and samples in one batch; an empty structure gives an empty asset and a warning.
    Example:
        >>> pipeline = Trellis2Pipeline.from_folder("TRELLIS.2-4B", image_encoder=encoder, device="cuda")            # doctest: +SKIP
        >>> made = pipeline.generate(PIL.Image.open("chair.png"), generator=torch.Generator().manual_seed(42))      # doctest: +SKIP
        >>> voxgen.io.save_mesh(made.meshes()[0], "chair.glb")                                                      # doctest: +SKIP
    """

    @staticmethod
    def from_folder(
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_encoder: Conditioners = None,
        low_memory: bool = False,
        structure_decoder: str | os.PathLike[str] | None = None,
        texturing: bool = True,
        verify: bool = True,
    ) -> Trellis2Pipeline:
        """A pipeline from a folder, its networks in evaluation mode.

        Args:
            path: the folder, with pipeline.json: written by `save_folder`, or a copy of microsoft/TRELLIS.2-4B.
            device: where the networks are; with low_memory where they go while they are used. None is the CPU.
            dtype: of the matrices and convolutions inside the blocks, in place of what the files say: torch.float32 on a CPU.
            image_encoder: in place of the folder's. The release has none of its own: pass `DINOv3Encoder(folder)`, or use tokens.
            low_memory: keep the networks on the CPU, and move each to `device` while it is used.
            structure_decoder: for the release: NAME of the pair ss_dec_conv3d_16l8_fp16, which is part of another one,
                microsoft/TRELLIS-image-large. None: where pipeline.json says it is, or in ckpts/.
            texturing: for the release: read the shape encoder too, where the folder has it (texturing_pipeline.json).
            verify: for folders of voxgen's: compare the checksum of each file.
        Raises:
            FileNotFoundError: no such folder or file.   FileFormatError: a folder of something else, or a damaged file.   CheckpointError:
            weights that do not fit.   RangeError: low_memory without a device.
        """
        from .files import read_pipeline

        return read_pipeline(
            Path(os.fspath(path)),
            device=device,
            dtype=dtype,
            image_encoder=image_encoder,
            low_memory=low_memory,
            structure_decoder=None if structure_decoder is None else Path(os.fspath(structure_decoder)),
            texturing=texturing,
            verify=verify,
        )

    def _in_folder(self) -> PipelineFolder:
        from .files import in_folder

        return in_folder(self)

    @torch.no_grad()
    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: Conditions | None = None,
        resolution: int | None = None,
        cascade: bool = True,
        material: bool | None = None,
        max_tokens: int = 49_152,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> Generated:
        """Picture → asset.

        Args:
            image: a picture, or a list of several, which make one asset each.
            conditions: tokens in place of a picture, see `Conditions`. The structure takes those of the lowest resolution.
            resolution: of the result; None takes the largest of shape_flows. Others than theirs (1536) with `cascade` only.
            cascade: make a shape at the lowest resolution first, and take the cells of the second pass from it.
            material: None makes materials if there are flows for them.
            max_tokens: the cascade lowers the resolution by 128 until every object has fewer tokens (at least 1024 stays).
            samples: objects of each picture, at once; those of one stand side by side.
            generator: of all noise: structure, (coarse shape,) shape, material, in this order: one, or one for each object, which is then
                the same alone and in any batch.
            progress: show bars.
            callback: see `StageCallback`; stages are "structure", "coarse shape", "shape" and "material".
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: neither a picture nor tokens, or both; a picture without an encoder; a resolution without flow or tokens.
            Others as `prepare_image`.
        Warns:
            EmptyResultWarning: no cell is occupied; the asset is empty.
        """
        where = "Trellis2Pipeline.generate"
        low = min(self.shape_flows)
        resolution = max(self.shape_flows) if resolution is None else resolution
        model = max((r for r in self.shape_flows if r <= resolution), default=low)
        two_passes = cascade and resolution > low
        first = low if two_passes else model
        if not two_passes and resolution != first:
            raise RangeError(f"{where}: resolution must be one of {sorted(self.shape_flows)} without a cascade; got {resolution}.")
        coloured = bool(self.material_flows) if material is None else material
        if coloured and not self.material_flows:
            raise RangeError(f"{where}: material=True needs material_flows; this pipeline has none.")
        painter = max((r for r in self.material_flows if r <= resolution), default=min(self.material_flows, default=0))
        uses: list[Use] = [("structure", low), ("shape", first), ("shape", model)]
        tokens = self._tokens(
            where,
            list(dict.fromkeys(uses + [("material", painter)] * coloured)),
            image,
            conditions,
            samples=samples,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )

        def options(stage: str) -> dict[str, Any]:
            told = None if callback is None else partial(callback, stage)
            return {"generator": generator, "progress": progress, "callback": told}

        side = self.shape_flows[first].resolution
        structure = self.sample_structure(tokens["structure", low], side=side, **options("structure"))
        warn_if_empty(where, structure, stacklevel=4)  # no_grad stands between
        named = options("coarse shape" if two_passes else "shape")
        latent = self.sample_shape(structure, first, tokens["shape", first], **named)
        if two_passes:
            with placed(self._place, self.shape_decoder):
                cells = self.shape_decoder.upsample(latent, self.shape_decoder.num_steps)
            grid, resolution = cascade_grid(cells, resolution, 2**self.shape_decoder.num_steps, max_tokens)
            latent = self.sample_shape(grid, model, tokens["shape", model], **options("shape"))
        colour = self.sample_material(latent, painter, tokens["material", painter], **options("material")) if coloured else None
        made = self.decode(latent, colour, progress=progress)
        return Generated(structure, made.shape_latent, made.material_latent, made.shape, made.ovoxel)

    def texture_mesh(
        self,
        mesh: TriMesh,
        image: Picture | None = None,
        resolution: int | None = None,
        *,
        conditions: Conditions | None = None,
        texture_size: int = 2048,
        unwrap: Literal["auto", "keep", "xatlas", "grid"] = "auto",
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> TexturedMesh:
        """Materials for a given mesh, as a picture shows them.

        The mesh, fitted to the unit cube, is voxelised; its shape latent is the mean of the encoder's posterior; the material latent is
        sampled on its cells, decoded on the encoder's own structure, and baked onto the mesh.

        Args:
            mesh: with faces; its materials are not read. It may stand anywhere and have either axis up.
            image, conditions: as in `generate`, of one object.
            resolution: of the O-Voxel, one of material_flows; None takes the largest.
            texture_size, unwrap: see `OVoxel.bake`.
            generator: of the noise of the material latent.
            progress, callback, remove_background, assume_foreground: as in `generate`.
        Raises:
            RangeError: a pipeline without shape_encoder, material_flows or material_decoder; a resolution without a flow; tokens of several
            objects.   MeshError: a mesh without faces, or broken.   Others as `generate`.
        """
        from .texture import texture_mesh

        return texture_mesh(
            self,
            mesh,
            resolution,
            lambda where, uses: self._tokens(
                where,
                uses,
                image,
                conditions,
                samples=1,
                remove_background=remove_background,
                assume_foreground=assume_foreground,
            ),
            texture_size=texture_size,
            unwrap=unwrap,
            generator=generator,
            progress=progress,
            callback=callback,
        )

    def _tokens(self, where: str, uses: Sequence[Use], image: Any, conditions: Conditions | None, **options: Any) -> dict[Use, Context]:
        """Tokens of each use; image encoders are moved as the other networks are."""
        encoders = list(self.image_encoder.values()) if isinstance(self.image_encoder, Mapping) else [self.image_encoder]
        with placed(self._place, *(encoders if image is not None else [])):
            return tokens_of_uses(where, uses, image, conditions, self.image_encoder, self.image_sizes, **options)
