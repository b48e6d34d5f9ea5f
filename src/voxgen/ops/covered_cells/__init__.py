"""Which cells of a grid a triangle mesh overlaps: all of them, also those that it passes without crossing an edge."""

from __future__ import annotations

from collections.abc import Sequence

from voxgen.core.aliases import Cells, Faces, Float3, Int3, Vertices
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.voxelize._prepare import prepare

__all__ = ["covered_cells"]

BYTES_A_CELL = {"numba": 40, "reference": 3000}
"""Peak extra bytes for each cell of the result."""

OP = Op(
    "covered_cells",
    [
        Backend("numba", "voxgen.ops.covered_cells._numba:covered_cells", (cpu_only,)),
        Backend("reference", "voxgen.ops.covered_cells._reference:covered_cells"),
    ],
)


def covered_cells(
    vertices: Vertices,
    faces: Faces,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    backend: str = "auto",
) -> Cells:
    """List every cell that a triangle overlaps (the conservative voxelisation).

    A cell is a closed box here: a surface in the plane between two layers of cells belongs to both. `triangle_cells` lists fewer:
    those at whose edges a triangle crosses the grid.

    Args:
        vertices: (v, 3) float32 or float64, world units. Relative to `origin` they are rounded to float32.
        faces: (f, 3) int32 or int64; faces without area are left out.
        origin: world position of the lowest corner of the grid.
        voxel_size: world length of a cell, one number or one an axis (rounded to float32).
        resolution: cells along the axes, 1 to 65,536.
        backend: see docs/backends.md.
    Returns:
        (n, 3) int32 cells, unique, in lexicographic order, on the mesh's device. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments of a wrong kind.
        MeshError: no faces, only faces without area, an index out of range, a vertex that is not finite.
        FrameError: the mesh leaves the box.   CapacityError: the result would not fit in free memory.
    Memory: bits of 1,024 bricks of 16³ cells, and about 40 bytes a cell of the result.
    Source: T. Akenine-Möller, Fast 3D triangle-box overlap testing (2001); TripoSF's preparation of meshes uses the same test.
    Numerics: float64, on boxes grown by 2⁻²² of the grid's side, so that rounding of a vertex never loses a cell.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> ball = sphere(0.4)
        >>> len(covered_cells(ball.vertices, ball.faces, origin=(-0.5,) * 3, voxel_size=1 / 16, resolution=16)) > 700
        True
    """
    where = "covered_cells"
    scene = prepare(where, vertices, faces, origin, voxel_size, resolution, None)
    call = Call.of(scene.vertices)
    cells = 2 * scene.crossings + len(scene.faces)
    require_memory(where, int(BYTES_A_CELL[OP.choose(backend, call).name] * cells), scene.vertices.device, "Lower the resolution.")
    return OP.run(backend, call, scene)
