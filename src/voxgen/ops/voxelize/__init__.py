"""Which cells of a grid a triangle mesh touches, and through which triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from voxgen.core.aliases import Cells, Faces, Float3, Int3, Vertices
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._prepare import prepare, warn_if_empty

__all__ = ["TriangleCells", "triangle_cells"]

BYTES_A_CROSSING = {"numba": 100, "torch": 600, "reference": 2000}
"""Peak extra bytes for each expected crossing of a triangle with a grid edge (about one for each cell of the result)."""

OP = Op(
    "voxelize",
    [
        Backend("numba", "voxgen.ops.voxelize._numba:triangle_cells", (cpu_only,)),
        Backend("torch", "voxgen.ops.voxelize._torch:triangle_cells"),
        Backend("reference", "voxgen.ops.voxelize._reference:triangle_cells"),
    ],
)


class TriangleCells(NamedTuple):
    """The cells a mesh touches, and each pair of a triangle and a cell it touches.

    cells: (n, 3) int32, unique, in lexicographic order.
    triangle: (m,) int32, the face of each pair.   cell_row: (m,) int32, the row of `cells` of each pair.
    Pairs are unique and sorted by cell_row, then by triangle.
    """

    cells: Cells
    triangle: Tensor
    cell_row: Tensor


def triangle_cells(
    vertices: Vertices,
    faces: Faces,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    compat: Literal["trellis2"] | None = None,
    backend: str = "auto",
) -> TriangleCells:
    """List the cells around every grid edge that a triangle crosses.

    A triangle touches a cell here if it crosses one of the cell's twelve edges (those in the boundary planes of the
    grid excepted). A triangle that passes through a cell without crossing an edge of it does not touch it: these are
    the cells that the flexible dual grid gives a dual vertex, and those of its material volume.

    Args:
        vertices: (v, 3) float32 or float64, world units. Relative to `origin` they are rounded to float32.
        faces: (f, 3) int32 or int64.
        origin: world position of the lowest corner of the grid (rounded to the dtype of vertices).
        voxel_size: world length of a cell, one number or one an axis (rounded to float32).
        resolution: cells along the axes, 1 to 65536.
        compat: "trellis2" leaves out what lies outside the box without a word, loses a surface on the upper face of the
            box, and takes one up to a voxel below the box for one in the first cell. None: the box is closed, and
            geometry outside it raises; and a grid line that passes exactly through an edge between two triangles crosses one
            of them (the original may miss both, which leaves a hole, or hit both).
        backend: see docs/backends.md.
    Returns:
        TriangleCells. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments of a wrong kind.
        MeshError: no faces, only faces without area, an index out of range, a vertex that is not finite.
        FrameError: the mesh leaves the box (with compat: by more than 65536 voxels).
        CapacityError: the result would not fit in free memory.
    Warns:
        EmptyResultWarning: no triangle crosses a grid edge.
    Source: TRELLIS.2 (arXiv 2512.14692), O-Voxel conversion, edge crossings.
    Numerics: the scan is done in float64 from float32 vertices with the same operations in every engine, so that all give
        the same cells. Positions of grid planes are rounded to float32, as in the original.
    Example:
        >>> touched = triangle_cells(mesh.vertices, mesh.faces, origin=(-0.5, -0.5, -0.5), voxel_size=1 / 64, resolution=64)
        >>> world_normals[touched.triangle]        # one row for each pair
    """
    where = "triangle_cells"
    scene = prepare(where, vertices, faces, origin, voxel_size, resolution, compat)
    call = Call.of(scene.vertices)
    needed = BYTES_A_CROSSING[OP.choose(backend, call).name] * scene.crossings
    require_memory(where, int(needed), scene.vertices.device, "Lower the resolution.")
    result = TriangleCells(*OP.run(backend, call, scene))
    warn_if_empty(where, scene, len(result.cells))
    return result
