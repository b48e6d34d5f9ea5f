"""Direct3DS2Pipeline: picture → structure → latent → SDF → mesh, and from that mesh once more at twice the resolution."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxgen.core import SparseTensor
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.pipelines.folder import PipelineFolder
from voxgen.models.pipelines.saving import SavedInFolder
from voxgen.models.pipelines.stages import Generators, StageCallback, warn_if_empty

from .conditions import AnyCondition, conditions_by_stage, repeated_condition
from .records import DecodedSurface, GeneratedSDF
from .stages import Compat, Direct3DS2Stages

__all__ = ["Direct3DS2Pipeline"]


@dataclass(frozen=True, eq=False)
class Direct3DS2Pipeline(Direct3DS2Stages, SavedInFolder):
    """The stages of Direct3D-S2 over networks of any size.

    A dense flow makes the cells of a coarse grid (structure). On them a sparse flow makes a latent, which decodes to an SDF and a mesh
    (coarse). The cells around that mesh at a higher resolution are the tokens of a second sparse flow (fine). Every stage is a method, and
    `generate` calls them in turn. Networks run where they are and as they are: move them to a device and call `.eval()` first.

    Args:
        structure_flow, structure_vae: of the occupancy of the coarse grid of tokens, or of a finer one.
        flows: an `SSDiT` for each output resolution, such as {512: …, 1024: …}, whose own `resolution` is an eighth. The lowest is
            the coarse stage. Those with `sparse_conditions` (release 1.0) take tokens of the object alone, others (1.1) all tokens.
        vaes: a `SparseSDFVAE` for each of these resolutions.
        refiner: of the decoded coarse field.
        sign_refiner: says which cells around a decoded fine field are inside; without it the released weights leave a second surface
            within solids.
        samplers: by stage, see `direct3d_s2_samplers`.
        image_encoder: of pictures, one or by stage ("structure", "coarse", "fine"); None: tokens only.
        image_system: whose preparation of pictures.
        threshold: probability from which a cell of the structure is occupied.
        levels: by stage, where surfaces are extracted, in shares of the band; positive is outside. The release extracts the refined
            coarse field at 0.4 and the fine one at 0.2, which makes shapes thicker by so much. Networks trained with signs on both
            sides (`sdf_targets`) want 0.
        bands: by resolution, cells that a decoded value of 1 means; 4 where none is given. Only the SDF of the result depends on it,
            and which cells around the coarse mesh are tokens.
        structure_normalization: of the latents that structure_flow makes; None where there is none, as in the release.
        low_memory: each network is moved to `device` only while it is used, and then back. Results are the same.
        device: where low_memory puts them.
        compat: "direct3d_s2" does as the release: noise in the dtype of the networks and in its order of tokens, times and increments
            rounded to it, distances on nodes i / (n − 1), meshes in the cube [−1, 1]³ with the centre of cell i at 2 i / n − 1 (a shift of
            half a cell between the two stages), inactive cells filled with +1 where there is no refiner, cells that its chunked decoder
            repeats counted as often. None does the same on cell centres of the cube [−0.5, 0.5]³.
    Raises:
        RangeError, ShapeError: parts that do not fit each other.
    Source: Direct3D-S2 (arXiv 2505.17412) and its released pipeline, versions 1.0 and 1.1. Differences: several pictures and samples in
        one batch; no dense volume in the fine stage, and none in extraction; an empty structure gives an empty mesh and a warning;
        meshes are not decimated.
    Example:
        >>> pipeline = Direct3DS2Pipeline.from_folder("direct3d-s2-v-1-1", device="cuda")                       # doctest: +SKIP
        >>> made = pipeline.generate(conditions=tokens, resolution=512, generator=torch.Generator().manual_seed(1))  # doctest: +SKIP
        >>> made.mesh.num_faces                                                                                 # doctest: +SKIP
    """

    @staticmethod
    def from_folder(
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_encoder: Conditioners = None,
        compat: Compat | None = None,
        fine: bool = True,
        low_memory: bool = False,
        verify: bool = True,
    ) -> Direct3DS2Pipeline:
        """A pipeline from a folder, its networks in evaluation mode.

        Args:
            path: the folder: written by `save_folder`, or a copy of a published one, such as direct3d-s2-v-1-1 (config.yaml and the .ckpt
                files beside it).
            device: where the networks are; with low_memory where they go while they are used. None is the CPU.
            dtype: of matrices and convolutions, in place of what the files say: torch.float32 on a CPU.
            image_encoder: in place of the folder's. The published ones have none: pass `DINOv2Encoder(folder)`, or use tokens.
            compat: see `Direct3DS2Pipeline`; None takes the folder's, and for published ones None.
            fine: for published folders: read the fine stage too.
            low_memory: keep the networks on the CPU, and move each to `device` while it is used.
            verify: for folders of voxgen's: compare the checksum of each file.
        Raises:
            FileNotFoundError: no such folder or file.   FileFormatError: a folder of something else, or a damaged file.   CheckpointError:
            weights that do not fit.   RangeError: low_memory without a device.   MissingDependency: PyYAML, for published folders.
        """
        from .files import read_pipeline

        return read_pipeline(
            Path(os.fspath(path)),
            device=device,
            dtype=dtype,
            image_encoder=image_encoder,
            compat=compat,
            fine=fine,
            low_memory=low_memory,
            verify=verify,
        )

    def _in_folder(self) -> PipelineFolder:
        from .files import in_folder

        return in_folder(self)

    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: AnyCondition | Mapping[str, AnyCondition] | None = None,
        resolution: int | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> GeneratedSDF:
        """Picture → mesh.

        Args:
            image: a picture with alpha, or a list of b.
            conditions: in place of pictures: of b objects for all stages, or by stage; see `sample_latent`.
            resolution: of the result, one of `flows`; None is the highest.
            samples: of each picture, side by side in the batch.
            generator: of all noise: structure, coarse, fine, in this order.
            progress: show bars.
            callback: see `StageCallback`; stages are "structure", "coarse" and "fine".
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: a resolution without flow; pictures and conditions, or neither.   Others as the stages.
        Warns:
            EmptyResultWarning: a sample has no occupied cell, or no surface; its mesh is empty.
        """
        where = "Direct3DS2Pipeline.generate"
        target = max(self.flows) if resolution is None else resolution
        self._flow(where, target)
        given = conditions_by_stage(
            where,
            self.stages(target),
            image,
            conditions,
            self.image_encoder,
            self.image_system,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
            place=self._place,
        )

        def options(stage: str) -> dict[str, Any]:
            told = None if callback is None else partial(callback, stage)
            return {"generator": generator, "progress": progress, "callback": told}

        grid = structure = self.sample_structure(given["structure"], samples=samples, **options("structure"))
        warn_if_empty(where, structure)
        latents: dict[int, SparseTensor] = {}
        decoded: dict[int, DecodedSurface] = {}
        for stage, side in zip(("coarse", "fine"), dict.fromkeys((self.lowest, target)), strict=False):
            if stage == "fine":
                grid = self.fine_cells(decoded[self.lowest].meshes, side, progress=progress)
            latents[side] = self.sample_latent(grid, side, repeated_condition(where, given[stage], samples), **options(stage))
            decoded[side] = self.decode(latents[side], side, progress=progress)
        return GeneratedSDF(structure, latents, decoded, target)
