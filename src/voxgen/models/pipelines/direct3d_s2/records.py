"""What Direct3D-S2's pipeline gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.representations import SparseSDF

__all__ = ["DecodedSurface", "GeneratedSDF"]


@dataclass(frozen=True, eq=False)
class DecodedSurface:
    """A decoded latent.

    Attributes:
        sdf: distances that were extracted: of the decoder, or of a refiner, which gives them where the surface passes.
        meshes: one a sample, possibly empty.
    """

    sdf: SparseSDF
    meshes: tuple[TriMesh, ...]

    @property
    def mesh(self) -> TriMesh:
        """All samples in one mesh, a part for each; of no samples an empty mesh."""
        if not self.meshes:
            nothing = torch.zeros(0, 3, device=self.sdf.grid.device)
            return TriMesh(nothing, nothing.int(), up=self.sdf.frame.up)
        return self.meshes[0] if len(self.meshes) == 1 else TriMesh.concatenate(self.meshes)


@dataclass(frozen=True, eq=False)
class GeneratedSDF:
    """What a generation gave.

    Attributes:
        structure: occupied cells of the first stage, one batch of all samples.
        latents: by resolution, as the decoder reads them; their grids are the tokens of the stage.
        decoded: by resolution.
        resolution: of the last stage.
    """

    structure: VoxelGrid
    latents: Mapping[int, SparseTensor]
    decoded: Mapping[int, DecodedSurface]
    resolution: int

    @property
    def sdf(self) -> SparseSDF:
        """Of the last stage."""
        return self.decoded[self.resolution].sdf

    @property
    def meshes(self) -> tuple[TriMesh, ...]:
        """Of the last stage, one a sample."""
        return self.decoded[self.resolution].meshes

    @property
    def mesh(self) -> TriMesh:
        """Of the last stage, all samples in one mesh, a part for each; of no samples an empty mesh."""
        return self.decoded[self.resolution].mesh
