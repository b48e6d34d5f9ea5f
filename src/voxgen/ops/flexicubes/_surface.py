"""FlexSurface: what `flexicubes` found, and what regularisers read from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int16, Int32, Int64
from torch import Tensor

from voxgen.core.aliases import Faces, Offsets, Vertices
from voxgen.core.batching import unpack
from voxgen.core.errors import RangeError
from voxgen.core.frame import UpAxis
from voxgen.core.mesh import TriMesh
from voxgen.ops.segment import segment_broadcast, segment_reduce

from ._geometry import crossings, incidences


@dataclass(frozen=True, eq=False)
class FlexField:
    """The field that a surface was made from: rows of corners of each cell, values and positions of corners."""

    index: Int32[Tensor, "n 8"]
    sdf: Float[Tensor, " m"]
    positions: Float[Tensor, "m 3"]


@dataclass(frozen=True, eq=False)
class FlexSurface:
    """What `flexicubes` found. The vertices of a sample are its dual vertices, and then the centres of its quads (training).

    Attributes:
        vertices: (v, 3) world positions, differentiable.
        faces: (f, 3) int32; those of a quad, two or (training) four, stand together.
        vertex_offsets, face_offsets: (b + 1,) int64 bounds of the samples.
        quads: (q, 4) int32 vertices of each quad, counter-clockwise seen from where values are positive.
        vertex_cell: (v,) int32, the cell of each dual vertex; -1 for the centre of a quad.
        vertex_edges: (v,) int16, bit e: the vertex averages the crossing of edge e of its cell; 0 for the centre of a quad.
        field: what the surface was made from; None if that was never held as a whole (`flexicubes_in_slabs`).
        up: of the grid's frame.
    """

    vertices: Vertices
    faces: Faces
    vertex_offsets: Offsets
    face_offsets: Offsets
    quads: Int32[Tensor, "q 4"]
    vertex_cell: Int32[Tensor, " v"]
    vertex_edges: Int16[Tensor, " v"]
    field: FlexField | None
    up: UpAxis

    def __repr__(self) -> str:
        return f"FlexSurface({len(self.vertices)} vertices, {len(self.faces)} faces, batch_size={len(self.face_offsets) - 1})"

    def crossings(self) -> tuple[Float[Tensor, "i 3"], Int64[Tensor, " i"]]:
        """The crossings that the dual vertices average, and the vertex of each, ascending.

        A crossing is the zero of the plain field on its edge, without alpha; it comes once for each cube around the edge.
        Differentiable in the sdf and the positions.

        Raises:
            RangeError: the surface does not remember its field.
        """
        if self.field is None:
            raise RangeError("FlexSurface.crossings: the surface was made in slabs and has no field; use flexicubes() on the whole grid.")
        vertex, edge = incidences(self.vertex_edges)
        cell = self.vertex_cell.long()[vertex]
        field = self.field
        return crossings(field.index, field.sdf, field.positions, cell, edge, None), vertex

    def deviation(self) -> Float[Tensor, " i"]:
        """The FlexiCubes regulariser L_dev, one value for each of `crossings`; see `crossing_deviation`. Differentiable in all inputs."""
        points, vertex = self.crossings()
        return crossing_deviation(self.vertices, points, vertex)

    def to_meshes(self) -> tuple[TriMesh, ...]:
        """One mesh a sample, empty ones included."""
        vertices = unpack(self.vertices, self.vertex_offsets)
        faces = unpack(self.faces, self.face_offsets)
        first = self.vertex_offsets[:-1].tolist()
        return tuple(TriMesh(v, f - s, up=self.up) for v, f, s in zip(vertices, faces, first, strict=True))


def crossing_deviation(vertices: Float[Tensor, "v 3"], points: Float[Tensor, "i 3"], vertex: Int64[Tensor, " i"]) -> Float[Tensor, " i"]:
    """How much the distance from a crossing to its dual vertex differs from the mean of such distances of that vertex.

    With d_i = |u_i − v|: |d_i − mean of d over the crossings of the vertex|, in world units. It is 0 where a vertex is as far
    from all of its crossings. Plain tensors, differentiable in both.

    Args:
        vertices: (v, 3) dual vertices, others among them do no harm.
        points, vertex: (i, 3) crossings and (i,) the row of the vertex of each, ascending, as `FlexSurface.crossings` gives them.
    Source: T. Shen et al., Flexible isosurface extraction (FlexiCubes, 2023), L_dev.
    """
    distance = torch.linalg.vector_norm(points - torch.nn.functional.embedding(vertex, vertices), dim=1)[:, None]
    offsets = torch.searchsorted(vertex, torch.arange(len(vertices) + 1, device=vertex.device))
    mean = segment_broadcast(segment_reduce(distance, offsets, "mean"), offsets, rows=len(points))
    return (distance - mean).abs()[:, 0]
