"""Which cells lie inside a triangle mesh, by its generalized winding number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Cells, Faces, Float3, Int3, Vertices
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.coords import check_coords, is_sorted
from voxgen.core.errors import RangeError
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.voxelize._prepare import prepare

__all__ = ["inside_mesh", "winding_numbers"]

OP = Op(
    "inside_mesh",
    [
        Backend("numba", "voxgen.ops.inside_mesh._numba:winding", (cpu_only,)),
        Backend("reference", "voxgen.ops.inside_mesh._reference:winding"),
    ],
)


def inside_mesh(
    vertices: Vertices,
    faces: Faces,
    cells: Cells,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: float,
    resolution: int | Int3,
    backend: str = "auto",
) -> Bool[Tensor, " n"]:
    """True where the winding number of the mesh around a cell's centre exceeds one half.

    The winding number is the solid angle under which the mesh is seen, over 4π: 1 inside and 0 outside of a closed surface that
    winds outwards, 2 where two such bodies overlap, and in between where the surface is open. So holes are closed by the surface
    on which it is one half.

    Args:
        vertices: (v, 3) float32 or float64, world units. Relative to `origin` they are rounded to float32.
        faces: (f, 3) int32 or int64, wound counter-clockwise seen from outside.
        cells: (n, 3) int32 in the grid, unique and in lexicographic order.
        origin, voxel_size, resolution: the grid: world position of its lowest corner, length of a cell, cells along the axes.
        backend: see docs/backends.md.
    Returns:
        (n,) bool on the mesh's device. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments of a wrong kind; cells out of range or order.
        MeshError: no faces, only faces without area, an index out of range, a vertex that is not finite.
        FrameError: the mesh leaves the box.
    Source: A. Jacobson, L. Kavan and O. Sorkine-Hornung, Robust inside-outside segmentation using generalized winding numbers
        (2013). Exact, not by a hierarchy of approximations: see `_numba`. Closed meshes cost one pass over the lattice columns;
        open ones besides the number of blocks of 8³ cells, and of cells near the holes, times the number of border edges. With
        more than 2000 of these, as in a soup of triangles, libigl's fast winding number is used, which is off by thousandths.
    Numerics: float64. A centre within rounding of the surface may fall to either side.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> cells = torch.tensor([[0, 0, 0], [8, 8, 8]], dtype=torch.int32)
        >>> ball = sphere(0.4)
        >>> inside_mesh(ball.vertices, ball.faces, cells, origin=(-0.5,) * 3, voxel_size=1 / 16, resolution=16)
        tensor([False,  True])
    """
    return _run("inside_mesh", vertices, faces, cells, origin, voxel_size, resolution, backend, numbers=False)


def winding_numbers(
    vertices: Vertices,
    faces: Faces,
    cells: Cells,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: float,
    resolution: int | Int3,
    backend: str = "auto",
) -> Float64[Tensor, " n"]:
    """The winding number of the mesh around the centre of each cell; arguments, errors and source as `inside_mesh`.

    Returns:
        (n,) float64. Costs the number of cells times the number of border edges.
    """
    return _run("winding_numbers", vertices, faces, cells, origin, voxel_size, resolution, backend, numbers=True)


def _run(
    where: str,
    vertices: Tensor,
    faces: Tensor,
    cells: Tensor,
    origin: Float3 | Sequence[float],
    voxel_size: float,
    resolution: int | Int3,
    backend: str,
    numbers: bool,
) -> Tensor:
    scene = prepare(where, vertices, faces, origin, voxel_size, resolution, None)
    require_tensor(where, "cells", cells, ("n", 3), (torch.int32,))
    require_same_device(where, vertices=vertices, cells=cells)
    coords = torch.nn.functional.pad(cells, (1, 0))
    check_coords(where, coords, scene.resolution, 1)
    grid = VoxelGrid.from_sorted(coords, resolution=scene.resolution, batch_size=1)
    if not is_sorted(grid.keys):
        raise RangeError(f"{where}: cells must be unique and in lexicographic order; sort them with VoxelGrid.build.")
    return OP.run(backend, Call.of(scene.vertices), scene, grid, numbers)
