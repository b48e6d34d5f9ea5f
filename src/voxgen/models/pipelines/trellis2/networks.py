"""The networks of Trellis2Pipeline, and its stages one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.attention import Context
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.core.frame import UpAxis
from voxgen.flow import Sampler
from voxgen.flow.samplers import Callback
from voxgen.models.latent_flow import LatentFlow, PatchedLatentFlow
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.pipelines.stages import Generators, repeated, sample_latent, sample_structure
from voxgen.models.sc_vae import MATERIAL_LATENTS, SHAPE_LATENTS, DecodedMaterials, LatentNormalization, SCDecoder, SCEncoder
from voxgen.models.sc_vae.content import MaterialContent, ShapeContent
from voxgen.models.structure import StructureDecoder, StructureFlow, StructureVAE

from .parts import require_parts
from .placement import placed
from .records import Generated
from .release import released_samplers

__all__ = ["Trellis2Stages"]

Flow: TypeAlias = LatentFlow | PatchedLatentFlow


@dataclass(frozen=True, eq=False)
class Trellis2Stages:
    """Networks, and a method for each stage. What the arguments mean stands at `Trellis2Pipeline`, which calls the stages in turn."""

    structure_flow: StructureFlow
    structure_decoder: StructureDecoder | StructureVAE
    shape_flows: Mapping[int, Flow]
    shape_decoder: SCDecoder
    material_flows: Mapping[int, Flow] = field(default_factory=dict)
    material_decoder: SCDecoder | None = None
    shape_normalization: LatentNormalization = SHAPE_LATENTS
    material_normalization: LatentNormalization = MATERIAL_LATENTS
    samplers: Mapping[str, Sampler] = field(default_factory=released_samplers)
    materials: tuple[str, ...] = ("base_color", "metallic", "roughness", "alpha")
    shape_encoder: SCEncoder | None = None
    image_encoder: Conditioners = None
    image_sizes: Mapping[int, int] | None = None
    structure_normalization: LatentNormalization | None = None
    up: UpAxis = "y"
    split_weights: bool = True
    low_memory: bool = False
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        require_choice("Trellis2Pipeline", "up", self.up, ("y", "z"))
        require_parts("Trellis2Pipeline", self)

    @torch.no_grad()
    def sample_structure(
        self,
        condition: Context,
        *,
        noise: Float[Tensor, "b c x y z"] | None = None,
        side: int | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the first shape flow.

        Args:
            condition: tokens at the lowest resolution, (b, m, c).
            noise: the start; None draws it.
            samples: objects of each of the b pictures.
            side: cells along a side of the result, which divides that of the decoded occupancy; None: of the first shape flow.
        """
        with placed(self._place, self.structure_flow, self.structure_decoder):
            return sample_structure(
                "sample_structure",
                self.structure_flow,
                self.structure_decoder,
                self.samplers["structure"],
                repeated("sample_structure", condition, samples),
                side=self.shape_flows[min(self.shape_flows)].resolution if side is None else side,
                noise=noise,
                normalization=self.structure_normalization,
                up=self.up,
                generator=generator,
                progress=progress,
                callback=callback,
            )

    @torch.no_grad()
    def sample_shape(
        self,
        grid: VoxelGrid,
        resolution: int,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> SparseTensor:
        """Latent of a shape on given cells, not normalised; `resolution` chooses the flow."""
        where = "sample_shape"
        flow = _flow(where, self.shape_flows, resolution)
        with placed(self._place, flow):
            return sample_latent(
                where,
                flow,
                self.samplers["shape"],
                grid,
                condition,
                self.shape_normalization,
                noise=noise,
                generator=generator,
                progress=progress,
                callback=callback,
            )

    @torch.no_grad()
    def sample_material(
        self,
        shape_latent: SparseTensor,
        resolution: int,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> SparseTensor:
        """Latent of materials on the cells of a shape's latent, not normalised."""
        where = "sample_material"
        flow = _flow(where, self.material_flows, resolution)
        shape = self.shape_normalization.normalize(shape_latent)

        def velocity(x: SparseTensor, t: Tensor, tokens: Context) -> SparseTensor:
            return flow(x, t, tokens, shape)

        with placed(self._place, flow):
            return sample_latent(
                where,
                flow,
                self.samplers["material"],
                shape_latent.grid,
                condition,
                self.material_normalization,
                velocity=velocity,
                noise=noise,
                generator=generator,
                progress=progress,
                callback=callback,
            )

    @torch.no_grad()
    def decode(self, shape_latent: SparseTensor, material_latent: SparseTensor | None = None, *, progress: bool = False) -> Generated:
        """Latents → O-Voxel; the material decoder follows the structure that the shape decoder predicts."""
        margin = self.shape_decoder.config.voxel_margin
        with placed(self._place, self.shape_decoder):
            shape = ShapeContent(0.5 if margin is None else margin).result(self.shape_decoder(shape_latent, progress=progress))
        ovoxel = shape.ovoxel if self.split_weights else shape.ovoxel.replace(split_weight=None)
        if material_latent is not None:
            if self.material_decoder is None:
                raise RangeError("Trellis2Pipeline.decode: there is a material latent, but no material_decoder.")
            with placed(self._place, self.material_decoder):
                output = self.material_decoder(material_latent, guide=shape.logits, progress=progress)
            ovoxel = cast(DecodedMaterials, MaterialContent(self.materials).result(output)).onto(ovoxel)
        return Generated(shape_latent.grid, shape_latent, material_latent, shape, ovoxel)

    @property
    def _place(self) -> torch.device | None:
        """Where networks go while they are used; None: they stay."""
        return torch.device(self.device) if self.low_memory and self.device is not None else None


def _flow(where: str, flows: Mapping[int, Flow], resolution: int) -> Flow:
    if resolution not in flows:
        raise RangeError(f"{where}: resolution must be one of {sorted(flows)}; got {resolution}.")
    return flows[resolution]
