"""O-Voxels as what examples train on: made of meshes, with their axes exchanged, and with or without materials."""

from __future__ import annotations

from torch import Tensor

from voxgen.core import Frame, TriMesh
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel import DEFAULT_MATERIALS

from .data import Axes, exchanged


def shape_of(mesh: TriMesh, resolution: int) -> OVoxel:
    """Dual vertices and flags."""
    return bare(OVoxel.from_mesh(mesh, resolution, materials=False, frame=Frame.unit(resolution)))


def shape_and_materials_of(mesh: TriMesh, resolution: int) -> OVoxel:
    """With base colour, metallic, roughness and alpha."""
    made = OVoxel.from_mesh(mesh, resolution, materials=DEFAULT_MATERIALS, frame=Frame.unit(resolution))
    return made.replace(crossing_sign=None)


def bare(ovoxel: OVoxel) -> OVoxel:
    """What the shape networks read, and nothing else."""
    return OVoxel(ovoxel.grid, ovoxel.dual_vertices, ovoxel.intersected)


def colored(ovoxel: OVoxel) -> OVoxel:
    """What the material networks read, and the shape that it lies on."""
    materials = {name: ovoxel.materials[name].float() for name in DEFAULT_MATERIALS}
    return OVoxel(ovoxel.grid, ovoxel.dual_vertices, ovoxel.intersected, materials=materials, color_space=ovoxel.color_space)


def exchange_axes(ovoxel: OVoxel, axes: Axes) -> OVoxel:
    """A cell owns the edges at its highest corner, before and after. Materials stay with their cells; they have no direction."""
    grid, rows = exchanged(ovoxel.grid, axes)
    order = list(axes)
    materials = {name: value[rows] for name, value in ovoxel.materials.items()}
    vertices, flags = ovoxel.dual_vertices[rows][:, order], ovoxel.intersected[rows][:, order]
    return OVoxel(grid, vertices, flags, materials=materials, color_space=ovoxel.color_space)


def select(ovoxel: OVoxel, keep: Tensor) -> OVoxel:
    """Some of the cells, by a mask of rows."""
    materials = {name: value[keep] for name, value in ovoxel.materials.items()}
    vertices, flags = ovoxel.dual_vertices[keep], ovoxel.intersected[keep]
    return OVoxel(ovoxel.grid.select(keep), vertices, flags, materials=materials, color_space=ovoxel.color_space)
