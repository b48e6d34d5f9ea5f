"""The stages of Direct3D-S2, each a method."""

from __future__ import annotations

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
from voxgen.flow.samplers import Callback
from voxgen.models.direct3d_s2 import SDFRefiner, SignRefiner, SSDiT
from voxgen.models.image_condition import System
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.pipelines.stages import Generators, sample_structure
from voxgen.models.pipelines.trellis2.placement import device_of, placed
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.models.structure import StructureFlow, StructureVAE

from .conditions import AnyCondition, count, nothing, on_device, repeated_condition
from .decode import decoded_surface, tokens_of_meshes
from .parts import CELLS, require_parts, require_pictures
from .records import DecodedSurface
from .release import as_released, direct3d_s2_samplers, release_frame, release_noise

__all__ = ["Compat", "Direct3DS2Stages"]

Compat = Literal["direct3d_s2"]


@dataclass(frozen=True, eq=False)
class Direct3DS2Stages:
    """Networks and stages of `Direct3DS2Pipeline`, whose arguments these are."""

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
    structure_normalization: LatentNormalization | None = None
    low_memory: bool = False
    device: torch.device | str | None = None
    compat: Compat | None = None

    def __post_init__(self) -> None:
        where = "Direct3DS2Pipeline"
        if self.compat is not None:
            require_choice(where, "compat", self.compat, ("direct3d_s2",))
        if self.low_memory and self.device is None:
            raise RangeError(f"{where}: low_memory needs a device, to which networks are moved while they are used.")
        require_parts(where, self.structure_flow, self.structure_vae, self.flows, self.vaes, self.structure_normalization)
        stages = self.stages(max(self.flows))
        require_pictures(where, stages, self.image_encoder, self.image_system)
        for name, given in (("samplers", self.samplers), ("levels", self.levels)):
            missing = [stage for stage in stages if stage not in given and (name, stage) != ("levels", "structure")]
            if missing:
                raise RangeError(f"{where}: {name} must have one for {missing[0]!r}; got those for {list(given)}.")
        if not all(-1 < level < 1 for level in self.levels.values()):
            raise RangeError(f"{where}: levels are shares of the band, between -1 and 1; got {dict(self.levels)}.")

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
        callback: Callback | None = None,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the coarse flow: its tokens.

        Args:
            condition: tokens of b objects.
            noise: the start, of b · samples objects; None draws it.
            samples: of each object.
        """
        where, flow = "Direct3DS2Pipeline.sample_structure", self.structure_flow
        with placed(self._place, flow, self.structure_vae):
            tokens: Any = on_device(repeated_condition(where, condition, samples), device_of(flow))
            if noise is None:
                like = torch.empty(len(tokens), flow.in_channels, *[flow.resolution] * 3, device=device_of(flow))
                noise = self._noise(where, like, flow.input_layer.weight, generator)
            grid = sample_structure(
                where,
                flow,
                self.structure_vae,
                self._sampler("structure", noise.dtype),
                tokens,
                side=self.flows[self.lowest].resolution,
                noise=noise,
                normalization=self.structure_normalization,
                threshold=self.threshold,
                progress=progress,
                callback=callback,
            )
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
        callback: Callback | None = None,
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
        with placed(self._place, flow):
            given = on_device(condition, device_of(flow))
            if noise is None:
                like = SparseTensor(grid, torch.empty(len(grid), flow.in_channels, device=grid.device))
                noise = self._noise(where, like, flow.input_layer.weight, generator)
            elif noise.channels != flow.in_channels or not noise.grid.same_cells(grid):
                raise ShapeError(f"{where}: noise must have {flow.in_channels} channels on the cells of {grid!r}; got {noise!r}.")
            sampler = self._sampler("coarse" if resolution == self.lowest else "fine", noise.dtype)
            velocity = cast(Callable[..., Any], flow)
            latent = sampler(velocity, noise, given, nothing(given), progress=progress, callback=callback)
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
        where = "Direct3DS2Pipeline.decode"
        self._flow(where, resolution)
        coarse = resolution == self.lowest
        vae, refiner = self.vaes[resolution], self.refiner if coarse else self.sign_refiner
        level = self.levels["coarse" if coarse else "fine"]
        with placed(self._place, vae, refiner):
            released = self.compat is not None
            return decoded_surface(where, latent, vae, refiner, level, self.band(resolution), released=released, progress=progress)

    def fine_cells(self, meshes: Sequence[TriMesh], resolution: int, *, progress: bool = False) -> VoxelGrid:
        """The tokens of a fine stage: cells near the surface of each mesh, whose bounding box is brought to 0.95 of the cube.

        Empty meshes have no tokens.
        Raises:
            RangeError: no flow for the resolution.   MeshError: meshes of one point.
        """
        flow = self._flow("Direct3DS2Pipeline.fine_cells", resolution)
        released = self.compat is not None
        grid = tokens_of_meshes(meshes, resolution, CELLS, self.band(resolution), released=released, progress=progress)
        return self._placed(grid, resolution).to(self._place or device_of(flow))

    @property
    def _place(self) -> torch.device | None:
        """Where networks go while they are used; None leaves them where they are."""
        return torch.device(self.device) if self.low_memory and self.device is not None else None

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
