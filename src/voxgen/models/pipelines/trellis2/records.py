"""What TRELLIS.2's pipeline gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.models.sc_vae import DecodedShape
from voxgen.representations import OVoxel

__all__ = ["Generated", "TexturedMesh"]


@dataclass(frozen=True, eq=False)
class Generated:
    """What a generation gave; b objects in one batch.

    Attributes:
        structure: the cells of the first stage, on the grid of the first shape flow.
        shape_latent: not normalised, on the cells that were decoded.
        material_latent: on the same cells; None where no material was asked for.
        shape: the decoded shapes.
        ovoxel: the shapes, with materials where there are any.
    """

    structure: VoxelGrid
    shape_latent: SparseTensor
    material_latent: SparseTensor | None
    shape: DecodedShape
    ovoxel: OVoxel

    def meshes(
        self, materials: Literal["attributes", "texture"] | None = "texture", *, opaque: bool = True, **options: Any
    ) -> list[TriMesh]:
        """A mesh for each object, empty where its structure was.

        Args:
            materials: "texture" bakes images, "attributes" gives them to the vertices.
            opaque: switch blending off, as the original's export does: decoded alpha is rarely exactly 1. False blends where it is below.
            options: of `OVoxel.to_mesh`, such as texture_size and unwrap.
        Raises: as `OVoxel.to_mesh`.
        """
        return [self.mesh(index, materials, opaque=opaque, **options) for index in range(self.ovoxel.grid.batch_size)]

    def mesh(
        self, index: int, materials: Literal["attributes", "texture"] | None = "texture", *, opaque: bool = True, **options: Any
    ) -> TriMesh:
        """The mesh of one object, as `meshes` has it."""
        mesh = self.ovoxel.sample(index).to_mesh(materials=materials, **options)
        if not opaque:
            return mesh
        return mesh.replace(materials=tuple(dataclasses.replace(m, alpha_mode="OPAQUE") for m in mesh.materials))


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """What texturing gave.

    Attributes:
        mesh: the given one with texture coordinates and one material; vertices may be split at the borders of charts.
        ovoxel: the mesh's O-Voxel with the generated materials.
        shape_latent: of the mesh, not normalised.
        material_latent: on the same cells, not normalised.
    """

    mesh: TriMesh
    ovoxel: OVoxel
    shape_latent: SparseTensor
    material_latent: SparseTensor
