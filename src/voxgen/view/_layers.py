"""What can be drawn of an object at a resolution: surface, cells, points, open edges, Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from voxgen.core import Frame, Gaussians, TriMesh, VoxelGrid
from voxgen.core.errors import DtypeError
from voxgen.ops.mesh_edges import edge_table
from voxgen.render.colormaps import apply_colormap
from voxgen.representations import GaussianSplats, OrientedPoints, OVoxel, SparseFlex, SparseSDF, fit_unit_cube

from ._files import Viewable

__all__ = ["FILE_RESOLUTION", "Layers", "layers"]

FILE_RESOLUTION = 0
"""The resolution that stands for what the file has."""
PLAIN = (120, 160, 210)
"""Colour of cells without one."""


@dataclass(frozen=True, eq=False)
class Layers:
    """What can be drawn; None where there is nothing of a kind.

    Attributes:
        surface: with materials as far as there are any.
        open_edges: (e, 2, 3) both ends of the edges that have one face only.
        grid: cells, with `cell_colors` (n, 3) for them.
        points: (p, 3) dual vertices, corners or samples, world.
        splats: Gaussians.
        up: which axis points up.   facts: lines about it all.
    """

    surface: TriMesh | None = None
    open_edges: Float[Tensor, "e 2 3"] | None = None
    grid: VoxelGrid | None = None
    cell_colors: UInt8[Tensor, "n 3"] | None = None
    points: Float[Tensor, "p 3"] | None = None
    splats: Gaussians | None = None
    up: str = "y"
    facts: list[str] = field(default_factory=list)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Low and high corner of everything; the unit cube where there is nothing."""
        found = []
        if self.surface is not None and self.surface.num_vertices:
            found.append(self.surface.vertices)
        if self.splats is not None and len(self.splats):
            found.append(self.splats.means)
        if self.points is not None and len(self.points):
            found.append(self.points)
        if not found:
            return torch.full((3,), -0.5), torch.full((3,), 0.5)
        every = torch.cat([f.detach().float().cpu() for f in found])
        return every.amin(0), every.amax(0)


def layers(item: Viewable, resolution: int = FILE_RESOLUTION) -> Layers:
    """What can be drawn of an object.

    Args:
        item: a mesh, one object of a representation (a batch raises), or Gaussians.
        resolution: cells a side of the O-Voxel that is shown; `FILE_RESOLUTION` shows the object itself. Meshes are fitted into the unit
            cube for it; volumes are never shown finer than they are.
    Raises:
        DtypeError: something else.   As the conversions.
    """
    if isinstance(item, GaussianSplats):
        return Layers(splats=item, points=item.means, up=item.up, facts=[f"{len(item):,} Gaussians, degree {item.degree}"])
    if isinstance(item, OrientedPoints):
        return Layers(points=item.points, up=item.frame.up, facts=[f"{len(item.points):,} points with normals"])
    if isinstance(item, TriMesh):
        if resolution == FILE_RESOLUTION:
            return _of_mesh(item, repr(item))
        return _of_ovoxel(OVoxel.from_mesh(fit_unit_cube(item), resolution=resolution))
    if isinstance(item, OVoxel):
        return _of_ovoxel(item if _keeps(item, resolution) else item.resample(resolution))
    if isinstance(item, SparseSDF | SparseFlex):
        mesh = item.to_mesh()
        if not _keeps(item, resolution):
            return _of_ovoxel(OVoxel.from_mesh(mesh, resolution=resolution, materials=False, frame=_at(item, resolution)))
        return _of_field(item, mesh)
    raise DtypeError(f"layers: item must be a mesh, a representation or Gaussians; got {type(item).__name__}.")


def _keeps(item: OVoxel | SparseSDF | SparseFlex, resolution: int) -> bool:
    return resolution == FILE_RESOLUTION or resolution >= max(item.resolution)


def _at(item: SparseSDF | SparseFlex, resolution: int) -> Frame:
    low, high = item.frame.bounds(item.resolution)
    return Frame.box(low, high, resolution, item.frame.up)


def _of_mesh(mesh: TriMesh, *facts: str) -> Layers:
    if mesh.num_faces == 0:
        return Layers(up=mesh.up, facts=[*facts, "no faces"])
    return Layers(surface=mesh, open_edges=_open_edges(mesh), up=mesh.up, facts=list(facts))


def _of_ovoxel(ovoxel: OVoxel) -> Layers:
    base = ovoxel.materials.get("base_color")
    shown = _of_mesh(ovoxel.to_mesh())
    colors = None if base is None else (base.float().clamp(0, 1) * 255).round().to(torch.uint8)
    cells = ovoxel.grid
    points = cells.frame.to_world(cells.cells.to(ovoxel.dual_vertices.dtype) + ovoxel.dual_vertices)
    return Layers(shown.surface, shown.open_edges, cells, _colors(cells, colors), points, None, shown.up, [repr(ovoxel)])


def _of_field(item: SparseSDF | SparseFlex, mesh: TriMesh) -> Layers:
    shown = _of_mesh(mesh)
    colors, points = None, None
    if isinstance(item, SparseSDF):
        values = item.sdf_cells[:, 0].float()
        colors = (apply_colormap(values, -item.band, item.band, "diverging") * 255).round().to(torch.uint8)
    else:
        points = item.positions.detach()
    return Layers(shown.surface, shown.open_edges, item.grid, _colors(item.grid, colors), points, None, shown.up, [repr(item)])


def _colors(grid: VoxelGrid, colors: Tensor | None) -> Tensor:
    return torch.tensor(PLAIN, dtype=torch.uint8).expand(len(grid), 3) if colors is None else colors.cpu()


def _open_edges(mesh: TriMesh) -> Tensor:
    table = edge_table(mesh, weld=True)
    ends = table.ends(table.half_edges[table.starts[table.counts == 1]])
    rows = torch.stack([torch.from_numpy(end) for end in ends], 1)
    # Welded faces name the first of equal vertices, so their indices hold for the mesh's own vertices.
    return mesh.vertices.detach().float().cpu()[rows]
