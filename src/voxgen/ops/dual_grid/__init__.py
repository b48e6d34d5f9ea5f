"""Mesh to flexible dual grid: the geometry of an O-Voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from voxgen.core.aliases import Cells, EdgeFlags, Faces, Float3, Int3, Points, Vertices
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.voxelize._prepare import prepare, warn_if_empty

from ._normalize import normalize_to_unit_box
from ._prepare import Problem, boundary_edges, check_weight

__all__ = ["DualGrid", "dual_grid", "normalize_to_unit_box"]

OP = Op(
    "dual_grid",
    [
        Backend("numba", "voxgen.ops.dual_grid._numba:dual_grid", (cpu_only,)),
        Backend("torch", "voxgen.ops.dual_grid._torch:dual_grid"),
        Backend("reference", "voxgen.ops.dual_grid._reference:dual_grid"),
    ],
)


class DualGrid(NamedTuple):
    """A surface as one vertex a cell and three flags a cell; rows in lexicographic order of the cells.

    cells: (n, 3) int32, unique.
    dual: (n, 3) float32 in [0, 1], the dual vertex as a position in its cell (0 = lower corner, 1 = upper corner).
    intersected: (n, 3) bool. Cell (i, j, k) owns the three edges that meet at its upper corner (i + 1, j + 1, k + 1), one
        along each axis; entry a is true iff a triangle crosses the edge along axis a. Unless compat is set, an edge that one
        sheet crosses back and forth (it grazes the edge or bends around it) is not flagged: a quad there would be a flap.
    crossing_sign: (n, 3) bool, true iff more of the triangles that cross the edge have a normal along +a than along -a
        (on a tie, false). The original has no such thing; it lets the quad of the edge be wound like the source.
    """

    cells: Cells
    dual: Points
    intersected: EdgeFlags
    crossing_sign: EdgeFlags


BYTES_A_CROSSING = {"numba": 80, "torch": 450, "reference": 3000}
"""Peak extra bytes for each expected crossing of a triangle with a grid edge (about one for each cell of the result)."""
BYTES_A_CHUNK = {"numba": 0, "torch": 2300, "reference": 0}
"""More for each of the first `CHUNK_CROSSINGS`: what is worked on at a time."""
CHUNK_CROSSINGS = 1 << 18
BYTES_A_FACE = 700
"""Peak extra bytes for each face."""


def dual_grid(
    vertices: Vertices,
    faces: Faces,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    face_weight: float = 1.0,
    boundary_weight: float = 0.2,
    regularization: float = 0.01,
    compat: Literal["trellis2"] | None = None,
    progress: bool = False,
    backend: str = "auto",
) -> DualGrid:
    """Convert a triangle mesh to a flexible dual grid.

    A cell is active if a triangle crosses one of its edges. Its dual vertex is the point of the cell with the least

        Σ_crossings dist(plane)² + face_weight Σ_overlapping triangles dist(plane)²
        + boundary_weight Σ_boundary edges dist(line)² + regularization · (number of crossings) · |v - mean crossing|²

    where a crossing counts for the four cells around the edge, and a boundary edge for the cells it runs through. Sharp
    edges and corners, open boundaries and inner surfaces survive; two sheets within one cell share a vertex. A part that
    lies inside one cell, without crossing an edge of it, is not seen.

    Args:
        vertices: (v, 3) float32 or float64, world units. Relative to `origin` they are rounded to float32.
        faces: (f, 3) int32 or int64. Any triangles: open, self-intersecting, non-manifold, some without area.
        origin: world position of the lowest corner of the grid (rounded to the dtype of vertices).
        voxel_size: world length of a cell, one number or one an axis (rounded to float32).
        resolution: cells along the axes, 1 to 65536.
        face_weight, boundary_weight, regularization: >= 0. With regularization 0, directions that the planes leave open go
            to the mean crossing point.
        compat: "trellis2" gives what the original gives: face_weight only switches its term on or off; edges count as
            boundary by vertex index, so that every seam of an unwelded mesh does; a boundary or a surface on the upper
            face of the box loses its term or is lost; what lies outside the box is left out without a word; where faces
            or edges lie in grid planes, the last bit of float32 says what they touch, and grid lines can slip through
            between two triangles. None: face_weight is a weight, vertices at one position count as one, the box is closed,
            geometry outside it raises, rounding decides nothing.
        progress: show a progress bar.
        backend: see docs/backends.md.
    Returns:
        DualGrid. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments of a wrong kind, a negative weight.
        MeshError: no faces, only faces without area, an index out of range, a vertex that is not finite.
        FrameError: the mesh leaves the box (with compat: by more than 65536 voxels).
        CapacityError: the result would not fit in free memory.
    Warns:
        EmptyResultWarning: no triangle crosses a grid edge.
    Source: TRELLIS.2 (arXiv 2512.14692), O-Voxel conversion. Differences in both modes: rows are sorted; sums are made in
        float64 relative to the cell, so duals lie nearer the minimum than the original's (1e-4 voxel in the median at 64³);
        a crossing always lies in its triangle.
    Numerics: the active cells and flags are exactly the original's (compat) and the same in every engine.
    Memory: about 60 bytes a cell (numba), or 400 and up to 600 MB besides (torch), and 700 a face.
    Example:
        >>> v = normalize_to_unit_box(mesh.vertices)
        >>> grid = dual_grid(v, mesh.faces, origin=(-0.5, -0.5, -0.5), voxel_size=1 / 256, resolution=256)
        >>> world = (grid.cells + grid.dual) / 256 - 0.5
    """
    where = "dual_grid"
    weights = [
        check_weight(where, name, value)
        for name, value in (("face_weight", face_weight), ("boundary_weight", boundary_weight), ("regularization", regularization))
    ]
    scene = prepare(where, vertices, faces, origin, voxel_size, resolution, compat)
    call = Call.of(scene.vertices)
    engine = OP.choose(backend, call).name
    needed = BYTES_A_CROSSING[engine] * scene.crossings + BYTES_A_FACE * len(scene.faces)
    needed += BYTES_A_CHUNK[engine] * min(scene.crossings, CHUNK_CROSSINGS)
    require_memory(where, int(needed), scene.vertices.device, "Lower the resolution.")
    edges = boundary_edges(scene) if weights[1] > 0 else torch.zeros((0, 2), dtype=torch.int64, device=scene.vertices.device)
    face = weights[0] if compat is None else float(weights[0] > 0)
    result = DualGrid(*OP.run(backend, call, Problem(scene, edges, face, *weights[1:]), progress))
    warn_if_empty(where, scene, len(result.cells))
    return result
