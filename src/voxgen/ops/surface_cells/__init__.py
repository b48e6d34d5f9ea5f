"""Which cells a triangle mesh touches (closed cells, closed triangles), and what the surface looks like inside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Frame, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.aliases import Cells, Faces, Float3, Int3, Vertices
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.voxelize._prepare import Scene, prepare

__all__ = ["CHANNELS", "SurfaceMoments", "surface_cells", "surface_channels", "surface_grid", "surface_moments"]

OP = Op(
    "surface_cells",
    [
        Backend("numba", "voxgen.ops.surface_cells._numba:surface_sums", (cpu_only,)),
        Backend("reference", "voxgen.ops.surface_cells._reference:surface_sums"),
    ],
)

CHANNELS = 15
"""Width of `SurfaceMoments.channels`."""
SMALLEST_AREA = 1e-9
"""In cell faces; a cell with less surface is touched at its boundary only."""
BYTES_A_CROSSING = {"numba": 400, "reference": 4000}
"""Peak extra bytes for each expected crossing of a triangle with a grid edge (about one for each cell of the result)."""


@dataclass(frozen=True, eq=False)
class SurfaceMoments:
    """The surface inside each cell that it touches. Made by `surface_moments`.

    Attributes:
        cells: (n, 3) int32, unique, in lexicographic order.
        area: (n,) float32 of the surface inside the cell, in faces of a cell; 0 where only the cell's boundary is touched.
        centroid: (n, 3) float32 mean position of the surface inside the cell, 0 to 1 along each axis.
        normal_outer: (n, 6) float32 mean of n nᵀ over that surface: xx, yy, zz, xy, yz, zx. It does not know front from back.
        spread: (n, 3) float32 standard deviation of the position along each axis, in cells.
    """

    cells: Cells
    area: Float[Tensor, " n"]
    centroid: Float[Tensor, "n 3"]
    normal_outer: Float[Tensor, "n 6"]
    spread: Float[Tensor, "n 3"]

    def channels(self) -> Float[Tensor, "n 15"]:
        """Fifteen numbers a cell for a network: centroid less the cell's centre (3), foot of the mean plane seen from the
        centre, N (centroid − centre) with N the mean of n nᵀ (3), N (6), spread (3). All lie in [−1, 1]."""
        offset = self.centroid - 0.5
        xx, yy, zz, xy, yz, zx = self.normal_outer.unbind(1)
        outer = torch.stack((xx, xy, zx, xy, yy, yz, zx, yz, zz), 1).unflatten(1, (3, 3))
        return torch.cat((offset, (outer @ offset[:, :, None])[:, :, 0], self.normal_outer, self.spread), 1)


def surface_cells(
    vertices: Vertices,
    faces: Faces,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    backend: str = "auto",
) -> Cells:
    """The cells whose closed boxes a triangle touches.

    Unlike `voxelize.triangle_cells`, which takes the cells around crossed grid edges, this takes every cell that holds any of the
    surface, also where a small triangle lies inside one cell. The set is exact, so that halving the resolution gives the
    parents of the cells and nothing else.

    Args:
        vertices: (v, 3) float32 or float64, world units.
        faces: (f, 3) int32 or int64. Faces without area touch nothing.
        origin: world position of the lowest corner of the grid.
        voxel_size: world length of a cell, one number or one an axis.
        resolution: cells along the axes, 1 to 65536.
        backend: see docs/backends.md.
    Returns:
        (n, 3) int32, unique, in lexicographic order. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments of a wrong kind.
        MeshError: no faces, only faces without area, an index out of range, a vertex that is not finite.
        FrameError: the mesh leaves the box.   CapacityError: the result would not fit in free memory.
    Source: voxels of TRELLIS and Sparse-Up (conservative triangle and box test); differences: none known.
    Numerics: float64 on the vertices as given; touching counts, within 1e-9 cells. Vertices up to a thousandth of a cell outside
        the box are moved onto it.
    Example:
        >>> from voxgen.testing.shapes import box
        >>> cube = box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25))
        >>> len(surface_cells(cube.vertices, cube.faces, origin=(-0.5, -0.5, -0.5), voxel_size=1 / 8, resolution=8))  # both sides
        208
    """
    return _run("surface_cells", vertices, faces, origin, voxel_size, resolution, backend, moments=False)[1]


def surface_moments(
    vertices: Vertices,
    faces: Faces,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    backend: str = "auto",
) -> SurfaceMoments:
    """`surface_cells`, and where and how the surface lies inside each: integrals over the triangles clipped to the cell.

    Arguments and errors as `surface_cells`.

    Returns:
        SurfaceMoments. A cell that is touched at its boundary only takes the point of the mesh nearest to its centre, moved into
        the cell, with that face's normal and no spread. Not differentiable.
    Source: the sub-voxel numbers that a mask generator needs; none of the papers states them.
    Numerics: integrals in float64, results in float32.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> ball = sphere()
        >>> surface_moments(ball.vertices, ball.faces, origin=(-0.5, -0.5, -0.5), voxel_size=1 / 8, resolution=8).channels().shape[1]
        15
    """
    scene, cells, sums = _run("surface_moments", vertices, faces, origin, voxel_size, resolution, backend, moments=True)
    area = sums[:, 0]
    centroid = sums[:, 1:4] / area[:, None].clamp_min(1e-300)
    variance = sums[:, 4:7] / area[:, None].clamp_min(1e-300) - centroid.square()
    outer = sums[:, 7:13] / area[:, None].clamp_min(1e-300)
    spread = variance.clamp_min(0).sqrt()
    bare = (area < SMALLEST_AREA).nonzero()[:, 0]
    if len(bare):
        point, normal = _nearest(scene, cells[bare])
        x, y, z = normal.unbind(1)
        centroid = centroid.index_copy(0, bare, point)
        outer = outer.index_copy(0, bare, torch.stack((x * x, y * y, z * z, x * y, y * z, z * x), 1))
        spread = spread.index_copy(0, bare, torch.zeros_like(point))
        area = area.index_fill(0, bare, 0.0)
    return SurfaceMoments(cells, area.float(), centroid.float(), outer.float(), spread.float())


def surface_grid(mesh: TriMesh, resolution: int | Int3, *, frame: Frame | None = None, backend: str = "auto") -> VoxelGrid:
    """The cells that a mesh touches as a grid of one sample (`VoxelGrid.batched` joins several).

    Args:
        mesh: in the frame's box.
        resolution: cells an axis, one number or three.
        frame: index ↔ world; None is the unit cube.
        backend: see docs/backends.md.
    Raises: as `surface_cells`.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> surface_grid(sphere(), 32).resolution
        (32, 32, 32)
    """
    place = Frame.unit(resolution, mesh.up) if frame is None else frame
    cells = surface_cells(
        mesh.vertices, mesh.faces, origin=place.origin, voxel_size=place.voxel_size, resolution=resolution, backend=backend
    )
    return _grid(cells, resolution, place)


def surface_channels(mesh: TriMesh, resolution: int | Int3, *, frame: Frame | None = None, backend: str = "auto") -> SparseTensor:
    """`surface_grid`, with the fifteen `SurfaceMoments.channels` on its cells; arguments and errors as there."""
    place = Frame.unit(resolution, mesh.up) if frame is None else frame
    moments = surface_moments(
        mesh.vertices, mesh.faces, origin=place.origin, voxel_size=place.voxel_size, resolution=resolution, backend=backend
    )
    return SparseTensor(_grid(moments.cells, resolution, place), moments.channels())


def _grid(cells: Tensor, resolution: int | Int3, frame: Frame) -> VoxelGrid:
    return VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)), resolution=resolution, batch_size=1, frame=frame)


def _run(
    where: str, vertices: Tensor, faces: Tensor, origin: object, voxel_size: object, resolution: object, backend: str, *, moments: bool
) -> tuple[Scene, Tensor, Tensor]:
    """The mesh in cells, float64; the cells; and the sums of an engine (n, 13), or (n, 0) where they are not wanted."""
    rounded = prepare(where, vertices, faces, origin, voxel_size, resolution, None)
    lowest, size = (torch.as_tensor(t, dtype=torch.float64, device=vertices.device) for t in (origin, voxel_size))
    top = torch.tensor(rounded.resolution, dtype=torch.float64, device=vertices.device)
    local = torch.minimum(((vertices.detach().double() - lowest) / size).clamp_min(0), top).contiguous()
    scene = replace(rounded, vertices=local, voxel_size=(1.0, 1.0, 1.0))
    call = Call.of(scene.vertices)
    needed = BYTES_A_CROSSING[OP.choose(backend, call).name] * scene.crossings
    require_memory(where, int(needed), scene.vertices.device, "Lower the resolution.")
    cells, sums = OP.run(backend, call, scene, moments)
    return scene, cells, sums


def _nearest(scene: Scene, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Of the mesh, seen from the centre of each cell: the nearest point, moved into the cell, and its face's unit normal."""
    from voxgen.ops.mesh_distance import mesh_distance

    found = mesh_distance(cells.double() + 0.5, scene.vertices, scene.faces)
    normals = TriMesh(scene.vertices, scene.faces).face_normals()
    return (found.closest - cells).clamp(0, 1), normals.index_select(0, found.face)
