"""What a mesh is made of and whether it closes: counts, borders, orientation, topology, area, volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from voxgen.core import TriMesh
from voxgen.core.aliases import Float3
from voxgen.ops.mesh_edges import edge_table
from voxgen.ops.mesh_edges._table import Array

from ._measure import count_pieces, measure_borders, measure_extent


@dataclass(frozen=True)
class MeshReport:
    """Findings of `mesh_report`. All topology is that of the proper faces: those with three different vertices.

    Attributes:
        vertices: different vertices that proper faces use.
        edges: different undirected edges of proper faces.
        faces: all faces that the mesh stores.
        stored_vertices: rows of the mesh's vertex buffer, used or not, before welding.
        degenerate_faces: faces that are not proper. They are left out of all that follows.
        flat_faces: proper faces without area: their height is at most the rounding of the coordinates (machine epsilon
            of the vertices' dtype times the largest coordinate). They count as faces: without them there would be holes.
        duplicate_faces: proper faces with the three vertices of an earlier one, in any order.
        boundary_edges: edges with exactly one face.   boundary_length: their total length, world units.
        boundary_loops: pieces of border: boundary edges that hang together. Two loops that touch in a pinched vertex
            are two.
        nonmanifold_edges: edges with more than two faces.
        inconsistent_edges: edges of exactly two faces that both run along it in the same direction.
        nonmanifold_vertices: pinched vertices, whose faces form more than one fan.
        components: pieces of faces that hang together through edges (touching in a vertex is not enough).
        euler_number: vertices − edges + proper faces.
        genus: handles, summed over the components, with pinched vertices split; None unless the mesh is closed,
            oriented and without non-manifold edges.
        is_closed: there are proper faces and no boundary edge.
        is_oriented: at every edge that is no boundary, as many faces run forwards as backwards. At edges of two faces
            this is consistent winding; at an edge of three it cannot hold.
        area: world units squared, duplicates counted as often as they come.
        volume: signed, positive if the faces wind outwards, world units cubed. None unless the mesh is closed and
            oriented: otherwise the value would depend on where the origin lies.
        bounds: lowest and highest position of the vertices that faces use, degenerate ones included.
        welded: whether vertices at exactly the same position counted as one.
    """

    vertices: int
    edges: int
    faces: int
    stored_vertices: int
    degenerate_faces: int
    flat_faces: int
    duplicate_faces: int
    boundary_edges: int
    boundary_length: float
    boundary_loops: int
    nonmanifold_edges: int
    inconsistent_edges: int
    nonmanifold_vertices: int
    components: int
    euler_number: int
    genus: int | None
    is_closed: bool
    is_oriented: bool
    area: float
    volume: float | None
    bounds: tuple[Float3, Float3]
    welded: bool

    def __str__(self) -> str:
        low, high = (" ".join(f"{x:.6g}" for x in corner) for corner in self.bounds)
        volume = "undefined (needs a closed, oriented mesh)" if self.volume is None else f"{self.volume:.6g}"
        genus = "undefined (needs a closed, oriented mesh without non-manifold edges)" if self.genus is None else str(self.genus)
        rows = {
            "vertices": f"{self.vertices:,} ({self.stored_vertices:,} stored{', welded' if self.welded else ''})",
            "edges": f"{self.edges:,}",
            "faces": f"{self.faces:,} ({self.degenerate_faces:,} degenerate, {self.flat_faces:,} flat, {self.duplicate_faces:,} duplicate)",
            "components": f"{self.components:,}",
            "boundary": f"{self.boundary_edges:,} edges in {self.boundary_loops:,} loops, length {self.boundary_length:.6g}",
            "non-manifold": f"{self.nonmanifold_edges:,} edges, {self.nonmanifold_vertices:,} pinched vertices",
            "winding": f"{self.inconsistent_edges:,} inconsistent edges",
            "Euler number": str(self.euler_number),
            "genus": genus,
            "closed": "yes" if self.is_closed else "no",
            "oriented": "yes" if self.is_oriented else "no",
            "area": f"{self.area:.6g}",
            "volume": volume,
            "bounds": f"{low}  to  {high}",
        }
        return "\n".join(f"{name:<13} {value}" for name, value in rows.items())


def mesh_report(mesh: TriMesh, *, weld: bool = True, progress: bool = False) -> MeshReport:
    """Count and measure a mesh: borders, seams, winding, pieces, topology, area, volume.

    Computed on the CPU in int64 and float64, wherever the mesh lies; not differentiable. About 400 bytes a face of
    working memory.

    Args:
        mesh: at least one face; its parts are taken as one surface.
        weld: count vertices at exactly the same position as one, so that seams of texture coordinates or of parts are no
            borders. False reports the buffers as they are.
        progress: show a bar of the steps.
    Returns:
        MeshReport; its `str` is a readable table.
    Raises:
        MeshError: no faces, an index out of range, or a vertex that is not finite.
    Example:
        >>> from voxgen.testing.shapes import box
        >>> report = mesh_report(box())
        >>> report.vertices, report.edges, report.faces, report.euler_number, report.is_closed
        (8, 18, 12, 2, True)
    """
    mesh.validate("mesh_report")
    points: Array = mesh.vertices.detach().double().cpu().numpy()
    used = np.zeros(len(points), bool)
    used[mesh.faces.cpu().numpy()] = True
    low, high = points[used].min(0), points[used].max(0)
    rounding = torch.finfo(mesh.vertices.dtype).eps * float(max(abs(low).max(), abs(high).max()))
    with tqdm(total=4, desc="mesh report", disable=not progress) as bar:
        table = edge_table(mesh, weld)
        forward = table.forward_counts()
        bar.update()
        pieces = count_pieces(table)
        bar.update()
        borders = measure_borders(table, pieces.fan, points)
        duplicates = table.duplicate_faces()
        bar.update()
        extent = measure_extent(table, points, rounding)
        bar.update()
    proper, edges = len(table.faces), len(table)
    nonmanifold = int((table.counts > 2).sum())
    inner = table.counts > 1
    is_closed = edges > 0 and borders.edges == 0
    is_oriented = bool((2 * forward[inner] == table.counts[inner]).all())
    solid = is_closed and is_oriented
    handles = pieces.components - (pieces.fans - edges + proper) // 2
    return MeshReport(
        vertices=pieces.vertices,
        edges=edges,
        faces=mesh.num_faces,
        stored_vertices=mesh.num_vertices,
        degenerate_faces=mesh.num_faces - proper,
        flat_faces=extent.flat,
        duplicate_faces=duplicates,
        boundary_edges=borders.edges,
        boundary_length=borders.length,
        boundary_loops=borders.loops,
        nonmanifold_edges=nonmanifold,
        inconsistent_edges=int((forward[table.counts == 2] != 1).sum()),
        nonmanifold_vertices=pieces.pinched,
        components=pieces.components,
        euler_number=pieces.vertices - edges + proper,
        genus=handles if solid and nonmanifold == 0 else None,
        is_closed=is_closed,
        is_oriented=is_oriented,
        area=extent.area,
        volume=extent.volume if solid else None,
        bounds=((float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))),
        welded=weld,
    )
