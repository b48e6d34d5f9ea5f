"""Trellis2Pipeline: image tokens → structure → shape latent → material latent → textured O-Voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.attention import Context
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import RangeError, ShapeError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, Sampler
from voxgen.models.latent_flow import LatentFlow
from voxgen.models.sc_vae import MATERIAL_LATENTS, SHAPE_LATENTS, DecodedMaterials, DecodedShape, LatentNormalization, SCDecoder
from voxgen.models.sc_vae.content import MaterialContent, ShapeContent
from voxgen.models.structure import StructureDecoder, StructureFlow
from voxgen.representations import OVoxel

from .cascade import cascade_grid
from .stages import repeated, sample_latent, sample_structure, warn_if_empty

__all__ = ["Generated", "Trellis2Pipeline", "released_samplers"]


def released_samplers() -> dict[str, Sampler]:
    """The samplers of the released pipeline: "structure", "shape", "material"."""
    return {
        "structure": EulerSampler(12, 5.0, guidance=ClassifierFreeGuidance(7.5, (0.6, 1.0), 0.7)),
        "shape": EulerSampler(12, 3.0, guidance=ClassifierFreeGuidance(7.5, (0.6, 1.0), 0.5)),
        "material": EulerSampler(12, 3.0, guidance=ClassifierFreeGuidance(1.0, (0.6, 0.9))),
    }


@dataclass(frozen=True, eq=False)
class Generated:
    """What a generation gave.

    Attributes:
        structure: the cells of the first stage, on the grid of the first shape flow.
        shape_latent: not normalised, on the cells that were decoded.
        material_latent: on the same cells; None where no material was asked for.
        shape: the decoded shape.
        ovoxel: the shape, with materials where there are any. `.to_mesh(materials="texture")` gives the asset.
    """

    structure: VoxelGrid
    shape_latent: SparseTensor
    material_latent: SparseTensor | None
    shape: DecodedShape
    ovoxel: OVoxel


@dataclass(frozen=True, eq=False)
class Trellis2Pipeline:
    """The three stages of TRELLIS.2 over networks of any size.

    Every stage is a method, and `generate` calls them in turn. Networks run where they are and as they are: move them to a device and
    call `.eval()` first.

    Args:
        structure_flow, structure_decoder: of the occupancy of a coarse grid.
        shape_flows: a `LatentFlow` for each output resolution, such as {512: …, 1024: …}; each works on the grid of its `resolution`.
        shape_decoder: latent of a shape → O-Voxel.
        material_flows: by output resolution, with the normalised shape latent as further input; empty: shapes only.
        material_decoder: latent of materials → O-Voxel materials, guided by the shape's structure.
        shape_normalization, material_normalization: of the latents; the released constants.
        samplers: by stage, see `released_samplers`.
    Raises:
        RangeError: no shape flow, or material flows without a decoder.   ShapeError: a normalisation of another width.
    Source: TRELLIS.2 (arXiv 2512.14692), image-to-3D pipeline. Differences: no decimation or hole filling afterwards; several samples
        in one batch; an empty structure gives an empty asset and a warning.
    Example:
        >>> pipeline = Trellis2Pipeline(flow, decoder, {512: shape_flow}, shape_decoder)          # doctest: +SKIP
        >>> asset = pipeline.generate({512: tokens}, resolution=512, generator=torch.Generator().manual_seed(42))   # doctest: +SKIP
    """

    structure_flow: StructureFlow
    structure_decoder: StructureDecoder
    shape_flows: Mapping[int, LatentFlow]
    shape_decoder: SCDecoder
    material_flows: Mapping[int, LatentFlow] = field(default_factory=dict)
    material_decoder: SCDecoder | None = None
    shape_normalization: LatentNormalization = SHAPE_LATENTS
    material_normalization: LatentNormalization = MATERIAL_LATENTS
    samplers: Mapping[str, Sampler] = field(default_factory=released_samplers)
    materials: tuple[str, ...] = ("base_color", "metallic", "roughness", "alpha")

    def __post_init__(self) -> None:
        where = "Trellis2Pipeline"
        if not self.shape_flows:
            raise RangeError(f"{where}: shape_flows must have at least one flow.")
        if self.material_flows and self.material_decoder is None:
            raise RangeError(f"{where}: material_flows need a material_decoder.")
        for name, flows, normalization in (
            ("shape", self.shape_flows, self.shape_normalization),
            ("material", self.material_flows, self.material_normalization),
        ):
            for resolution, flow in flows.items():
                if flow.out_channels != normalization.channels:
                    raise ShapeError(
                        f"{where}: {name}_normalization must have the {flow.out_channels} channels of {name}_flows[{resolution}]; "
                        f"it has {normalization.channels}."
                    )

    @torch.no_grad()
    def sample_structure(
        self,
        condition: Context,
        *,
        noise: Float[Tensor, "b c x y z"] | None = None,
        side: int | None = None,
        samples: int = 1,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the first shape flow.

        Args:
            condition: tokens at the lowest resolution, (b, m, c).
            noise: the start; None draws it.
            samples: objects of each of the b pictures.
            side: cells along a side of the result, which divides that of the decoded occupancy; None: of the first shape flow.
        """
        return sample_structure(
            "sample_structure",
            self.structure_flow,
            self.structure_decoder,
            self.samplers["structure"],
            repeated("sample_structure", condition, samples),
            side=self.shape_flows[min(self.shape_flows)].resolution if side is None else side,
            noise=noise,
            generator=generator,
            progress=progress,
        )

    @torch.no_grad()
    def sample_shape(
        self,
        grid: VoxelGrid,
        resolution: int,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SparseTensor:
        """Latent of a shape on given cells, not normalised; `resolution` chooses the flow."""
        where = "sample_shape"
        flow, sampler = _flow(where, self.shape_flows, resolution), self.samplers["shape"]
        return sample_latent(
            where, flow, sampler, grid, condition, self.shape_normalization, noise=noise, generator=generator, progress=progress
        )

    @torch.no_grad()
    def sample_material(
        self,
        shape_latent: SparseTensor,
        resolution: int,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SparseTensor:
        """Latent of materials on the cells of a shape's latent, not normalised."""
        where = "sample_material"
        flow = _flow(where, self.material_flows, resolution)
        shape = self.shape_normalization.normalize(shape_latent)

        def velocity(x: SparseTensor, t: Tensor, tokens: Context) -> SparseTensor:
            return flow(x, t, tokens, shape)

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
        )

    @torch.no_grad()
    def decode(self, shape_latent: SparseTensor, material_latent: SparseTensor | None = None, *, progress: bool = False) -> Generated:
        """Latents → O-Voxel; the material decoder follows the structure that the shape decoder predicts."""
        margin = self.shape_decoder.config.voxel_margin
        shape = ShapeContent(0.5 if margin is None else margin).result(self.shape_decoder(shape_latent, progress=progress))
        ovoxel = shape.ovoxel
        if material_latent is not None:
            if self.material_decoder is None:
                raise RangeError("Trellis2Pipeline.decode: there is a material latent, but no material_decoder.")
            output = self.material_decoder(material_latent, guide=shape.logits, progress=progress)
            ovoxel = cast(DecodedMaterials, MaterialContent(self.materials).result(output)).onto(ovoxel)
        return Generated(shape_latent.grid, shape_latent, material_latent, shape, ovoxel)

    def generate(
        self,
        conditions: Mapping[int, Context],
        *,
        resolution: int = 1024,
        cascade: bool = True,
        material: bool | None = None,
        max_tokens: int = 49_152,
        samples: int = 1,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Generated:
        """Image tokens → asset.

        Args:
            conditions: tokens (b, m, c) of the image, by the resolution of the flows that they are for; the lowest conditions the
                structure too.
            resolution: of the result. Other than those of shape_flows (1536) with `cascade` only.
            cascade: make a shape at the lowest resolution first, and take the cells of the second pass from it.
            material: None makes materials if there are flows for them.
            max_tokens: the cascade lowers the resolution by 128 until it has fewer tokens (at least 1024 stays).
            samples: objects of each picture, at once.
            generator: of all noise: structure, (coarse shape,) shape, material, in this order.
            progress: show bars.
        Raises:
            RangeError: a resolution without flow or tokens.
        Warns:
            EmptyResultWarning: no cell is occupied; the asset is empty.
        """
        where = "Trellis2Pipeline.generate"
        low = min(self.shape_flows)
        model = max(r for r in self.shape_flows if r <= max(resolution, low))
        two_passes = cascade and resolution > low
        first = low if two_passes else model
        if not two_passes and resolution != first:
            raise RangeError(f"{where}: resolution must be one of {sorted(self.shape_flows)} without a cascade; got {resolution}.")
        for needed in {low, first, model}:
            if needed not in conditions:
                raise RangeError(f"{where}: conditions must have tokens for {needed}; got those for {sorted(conditions)}.")
        common = {"generator": generator, "progress": progress}
        conditions = {r: repeated(where, tokens, samples) for r, tokens in conditions.items()}
        side = self.shape_flows[first].resolution
        structure = self.sample_structure(conditions[low], side=side, **common)
        warn_if_empty(where, structure)
        grid = structure
        latent = self.sample_shape(grid, first, conditions[first], **common)
        if two_passes:
            with torch.no_grad():
                cells = self.shape_decoder.upsample(latent, self.shape_decoder.num_steps)
            grid, resolution = cascade_grid(cells, resolution, 2**self.shape_decoder.num_steps, max_tokens)
            latent = self.sample_shape(grid, model, conditions[model], **common)
        colour = None
        if material if material is not None else bool(self.material_flows):
            flow = max((r for r in self.material_flows if r <= resolution), default=min(self.material_flows, default=0))
            colour = self.sample_material(latent, flow, conditions[model if flow not in conditions else flow], **common)
        made = self.decode(latent, colour, progress=progress)
        return Generated(structure, made.shape_latent, made.material_latent, made.shape, made.ovoxel)


def _flow(where: str, flows: Mapping[int, LatentFlow], resolution: int) -> LatentFlow:
    if resolution not in flows:
        raise RangeError(f"{where}: resolution must be one of {sorted(flows)}; got {resolution}.")
    return flows[resolution]
