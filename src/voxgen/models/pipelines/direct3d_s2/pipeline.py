"""Direct3DS2Pipeline: picture → structure → latent → SDF → mesh, and from that mesh once more at twice the resolution."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError, ShapeError
from voxgen.flow import Sampler, noise_like
from voxgen.flow._batch import B
from voxgen.models.direct3d_s2 import SDFRefiner, SignRefiner, SSDiT
from voxgen.models.image_condition import Picture, System
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.pipelines.stages import Generators, sample_structure, warn_if_empty
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.models.structure import StructureFlow, StructureVAE

from .conditions import AnyCondition, conditions_by_stage, count, nothing, repeated_condition
from .decode import decoded_surface, tokens_of_meshes
from .parts import CELLS, require_parts
from .records import DecodedSurface, GeneratedSDF
from .release import as_released, direct3d_s2_samplers, release_frame, release_noise

__all__ = ["Direct3DS2Pipeline"]

Compat = Literal["direct3d_s2"]


@dataclass(frozen=True, eq=False)
class Direct3DS2Pipeline:
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

    structure_flow: StructureFlow
    structure_vae: StructureVAE
    flows: Mapping[int, SSDiT]
    vaes: Mapping[int, SparseSDFVAE]
    refiner: SDFRefiner | None = None
    sign_refiner: SignRefiner | None = None
    samplers: Mapping[str, Sampler] = field(default_factory=direct3d_s2_samplers)
    image_encoder: Conditioners = None
    image_system: System = "direct3d-s2"
    threshold: float = 0.1
    levels: Mapping[str, float] = field(default_factory=lambda: {"coarse": 0.4, "fine": 0.2})
    bands: Mapping[int, float] = field(default_factory=dict)
    compat: Compat | None = None

    def __post_init__(self) -> None:
        where = "Direct3DS2Pipeline"
        if self.compat is not None:
            require_choice(where, "compat", self.compat, ("direct3d_s2",))
        require_parts(where, self.structure_flow, self.structure_vae, self.flows, self.vaes)
        for name, given in (("samplers", self.samplers), ("levels", self.levels)):
            missing = [stage for stage in self.stages(max(self.flows)) if stage not in given and (name, stage) != ("levels", "structure")]
            if missing:
                raise RangeError(f"{where}: {name} must have one for {missing[0]!r}; got those for {list(given)}.")

    @staticmethod
    def from_folder(
        path: str | os.PathLike[str], *, device: torch.device | str | None = None, compat: Compat | None = None, **options: Any
    ) -> Direct3DS2Pipeline:
        """A released folder with its config.yaml and .ckpt files; further options, and errors, as `read_release`."""
        from .files import read_release

        return read_release(path, device=device, compat=compat, **options)

    @property
    def lowest(self) -> int:
        """Resolution of the coarse stage."""
        return min(self.flows)

    def stages(self, resolution: int) -> dict[str, bool]:
        """Stages on the way to a resolution, and whether the flow of each takes a `SparseCondition`.

        Raises:
            RangeError: there is no flow for it.
        """
        sparse = {"structure": False, "coarse": self.flows[self.lowest].sparse_conditions}
        if resolution != self.lowest:
            sparse["fine"] = self._flow("Direct3DS2Pipeline", resolution).sparse_conditions
        return sparse

    def band(self, resolution: int) -> float:
        """Cells that a decoded value of 1 means."""
        return self.bands.get(resolution, 4.0)

    @torch.no_grad()
    def sample_structure(
        self,
        condition: AnyCondition,
        *,
        noise: Float[Tensor, "b c x y z"] | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the coarse flow: its tokens.

        Args:
            condition: tokens of b objects.
            noise: the start, of b · samples objects; None draws it.
            samples: of each object.
        """
        where, flow = "Direct3DS2Pipeline.sample_structure", self.structure_flow
        tokens: Any = repeated_condition(where, condition, samples)
        if noise is None:
            like = torch.empty(len(tokens), flow.in_channels, *[flow.resolution] * 3, device=flow.input_layer.weight.device)
            noise = self._noise(where, like, flow.input_layer.weight, generator)
        side = self.flows[self.lowest].resolution
        sampler = self._sampler("structure", noise.dtype)
        decoder, threshold = self.structure_vae, self.threshold
        grid = sample_structure(where, flow, decoder, sampler, tokens, side=side, noise=noise, threshold=threshold, progress=progress)
        return self._placed(grid, self.lowest)

    @torch.no_grad()
    def sample_latent(
        self,
        grid: VoxelGrid,
        resolution: int,
        condition: AnyCondition,
        *,
        noise: SparseTensor | None = None,
        generator: Generators = None,
        progress: bool = False,
    ) -> SparseTensor:
        """Latent on given cells, as the decoder reads it; `resolution` chooses the flow.

        Args:
            condition: of the grid's samples: a `SparseCondition` where the flow has sparse conditions, else tokens.
            noise: the start, on the cells of the grid; None draws it.
        Raises:
            RangeError: no flow for the resolution, or cells of another grid than the flow's.   ShapeError: a condition of another number
            of objects, noise on other cells.
        """
        where = "Direct3DS2Pipeline.sample_latent"
        flow = self._flow(where, resolution)
        if grid.resolution != (flow.resolution,) * 3:
            raise RangeError(f"{where}: grid must have the {flow.resolution} cells a side of flows[{resolution}]; got {grid.resolution}.")
        if count(condition) != grid.batch_size:
            raise ShapeError(f"{where}: condition must be of the grid's {grid.batch_size} samples; got {count(condition)}.")
        if noise is None:
            like = SparseTensor(grid, torch.empty(len(grid), flow.in_channels, device=grid.device))
            noise = self._noise(where, like, flow.input_layer.weight, generator)
        elif noise.channels != flow.in_channels or not noise.grid.same_cells(grid):
            raise ShapeError(f"{where}: noise must have {flow.in_channels} channels on the cells of {grid!r}; got {noise!r}.")
        sampler = self._sampler("coarse" if resolution == self.lowest else "fine", noise.dtype)
        latent = sampler(cast(Callable[..., Any], flow), noise, condition, nothing(condition), progress=progress)
        normalization = self.vaes[resolution].normalization
        return latent if normalization is None else normalization.denormalize(latent)

    @torch.no_grad()
    def decode(self, latent: SparseTensor, resolution: int, *, progress: bool = False) -> DecodedSurface:
        """Latent → SDF → refined SDF → a mesh for each sample, one sample at a time.

        Raises:
            RangeError: no autoencoder for the resolution; a latent with NaN.
        Warns:
            EmptyResultWarning: the surface of a sample that has cells is empty.
        """
        self._flow("Direct3DS2Pipeline.decode", resolution)
        coarse = resolution == self.lowest
        return decoded_surface(
            latent,
            self.vaes[resolution],
            self.refiner if coarse else self.sign_refiner,
            self.levels["coarse" if coarse else "fine"],
            self.band(resolution),
            released=self.compat is not None,
            progress=progress,
        )

    def fine_cells(self, meshes: Sequence[TriMesh], resolution: int, *, progress: bool = False) -> VoxelGrid:
        """The tokens of a fine stage: cells near the surface of each mesh, whose bounding box is brought to 0.95 of the cube.

        Empty meshes have no tokens.
        Raises:
            RangeError: no flow for the resolution.   MeshError: meshes of one point.
        """
        flow = self._flow("Direct3DS2Pipeline.fine_cells", resolution)
        released = self.compat is not None
        grid = tokens_of_meshes(meshes, resolution, CELLS, self.band(resolution), released=released, progress=progress)
        return self._placed(grid, resolution).to(flow.input_layer.weight.device)

    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: AnyCondition | Mapping[str, AnyCondition] | None = None,
        resolution: int | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
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
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: a resolution without flow; pictures and conditions, or neither.   Others as the stages.
        Warns:
            EmptyResultWarning: a sample has no occupied cell, or no surface; its mesh is empty.
        """
        where = "Direct3DS2Pipeline.generate"
        target = max(self.flows) if resolution is None else resolution
        self._flow(where, target)
        options = {"remove_background": remove_background, "assume_foreground": assume_foreground}
        stages = self.stages(target)
        given = conditions_by_stage(where, stages, image, conditions, self.image_encoder, self.image_system, **options)
        common: Any = {"generator": generator, "progress": progress}
        grid = structure = self.sample_structure(given["structure"], samples=samples, **common)
        warn_if_empty(where, structure)
        latents: dict[int, SparseTensor] = {}
        decoded: dict[int, DecodedSurface] = {}
        for stage, side in zip(("coarse", "fine"), dict.fromkeys((self.lowest, target)), strict=False):
            if stage == "fine":
                grid = self.fine_cells(decoded[self.lowest].meshes, side, progress=progress)
            latents[side] = self.sample_latent(grid, side, repeated_condition(where, given[stage], samples), **common)
            decoded[side] = self.decode(latents[side], side, progress=progress)
        return GeneratedSDF(structure, latents, decoded, target)

    def _flow(self, where: str, resolution: int) -> SSDiT:
        if resolution not in self.flows:
            raise RangeError(f"{where}: resolution must be one of {sorted(self.flows)}; got {resolution}.")
        return self.flows[resolution]

    def _noise(self, where: str, like: B, weight: Tensor, generator: Generators) -> B:
        if self.compat is not None:
            return release_noise(where, like, weight.dtype, weight.device, generator)
        return noise_like(like, generator)

    def _sampler(self, stage: str, dtype: torch.dtype) -> Sampler:
        sampler = self.samplers[stage]
        return sampler if self.compat is None else as_released(sampler, dtype)

    def _placed(self, grid: VoxelGrid, resolution: int) -> VoxelGrid:
        if self.compat is None:
            return grid
        frame = release_frame(resolution).coarsen(CELLS)
        return VoxelGrid.from_sorted(grid.coords, resolution=grid.resolution, batch_size=grid.batch_size, frame=frame)
