"""Mesh → sparse SDF."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import FLOATS, describe, require_choice, require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import DtypeError, EmptyResultWarning, MeshWarning, RangeError
from voxgen.ops.distance_band import DistanceBand, distance_band, require_band
from voxgen.ops.flood import flood
from voxgen.ops.inside_mesh import inside_mesh
from voxgen.ops.mesh_distance import closest_points
from voxgen.representations._placement import place, require_meshes

from ._caps import Box, close_holes, is_open

if TYPE_CHECKING:
    from ._fields import SparseSDF

SCALE = 0.95
"""Share of the box that the longest side of a fitted mesh takes, as in Direct3D-S2."""
MARGIN = 1.5
"""Cells that a fitted mesh keeps free at each side at least, so that cells on both sides of the surface exist."""
WALL = 0.5
"""Cells nearer than this, in cells, stop the water. Of two neighbouring cells on either side of the surface one is."""

Sign = Literal["winding", "flood", "unsigned"]


def from_mesh(
    mesh: TriMesh | Sequence[TriMesh],
    resolution: int | Int3,
    *,
    band: float = 4.0,
    sign: Sign = "winding",
    close: bool = True,
    inflate: float | None = None,
    frame: Frame | Literal["fit"] = "fit",
    dtype: torch.dtype = torch.float32,
    compat: Literal["direct3d_s2"] | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> SparseSDF:
    """Distances around a mesh, or around each of a list of meshes as a batch.

    Args:
        mesh: triangles in world units, finite, any number of parts.
        resolution: cells an axis, one number or three, 1 to 65,536.
        band: cells whose centre is nearer than this are kept, in cells. 4 is 1/128 of a box of side 2 at 1024³; below 2 the
            surface may get holes in `to_mesh`.
        sign: how inside is told from outside.
            "winding": inside where the winding number exceeds one half. For meshes that wind outwards; exact for closed ones,
            with cavities and overlapping parts.
            "flood": inside is what water around the box cannot reach. Needs no winding, gives a closed surface for every
            input: the outer hull, without cavities. Sheets and shells with holes, which water passes, become plates.
            "unsigned": no side; `to_mesh` gives a shell around the surface.
        close: with "winding", close holes by the surface on which the winding number is one half, and measure distances to it as
            well, so that an open mesh gives a closed surface. False measures to the mesh alone: the side changes there all the
            same, and `to_mesh` gives a flap at each rim that ends where the band does. Closed meshes are not affected.
        inflate: move the surface outwards by this many cells: distance − inflate. None is 0, and 1 for "flood" (with less than
            0.87 a sheet may become a plate with pinholes, and with 0 it is lost).
        frame: where the grid lies. "fit" puts the mesh's bounding box in the middle of a cube of which its longest side takes
            0.95, or less where that would leave under 1.5 cells (and `inflate`) free at the sides. So `to_mesh` gives back world
            positions; each mesh of a list is brought to the unit cube, because a batch has one frame. A Frame takes the mesh as
            it lies there; it must have cubes as cells, and a cell or two around the mesh.
        dtype: of the distances: float32, float64, float16 or bfloat16. Computed in float64, rounded at the end.
        compat: "direct3d_s2" gives the original's inference input: unsigned distances on nodes i / (n − 1) − 0.5, longest side 0.95,
            truncated to 1e-7 of the box, nearer than 4 / n. Its `band` is therefore 4 (n − 1) / n cells.
        backend: see docs/backends.md.
        progress: show bars.
    Returns:
        SparseSDF on the mesh's device, computed on the CPU. Not differentiable.
    Raises:
        MeshError: no faces, index out of range, vertices not finite, an empty list.
        RangeError, DtypeError: arguments that make no sense; a resolution too small for the margin.
        FrameError: geometry outside the given frame.   CapacityError: the estimate exceeds the free memory.
    Warns:
        MeshWarning: no cell is inside a mesh (a wrong winding, or an open surface).
        EmptyResultWarning: no cell is near enough.
    Memory: grows with the surface and the band: about 90 bytes a stored cell at the peak; "flood" takes 20 bytes for each
        column (x, y) besides.
    Source: Direct3D-S2 (arXiv 2505.17412), data preparation: signed distances truncated at 1/128. No preparation code is public;
        what is known of its inference is under `compat`.
    """
    where = "SparseSDF.from_mesh"
    cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    require_choice(where, "sign", sign, ("winding", "flood", "unsigned"))
    if dtype not in FLOATS:
        raise DtypeError(f"{where}: dtype must be float32, float64, float16 or bfloat16; got {describe(dtype)}.")
    given = require_meshes(where, mesh)
    meshes, single = [item.to("cpu") for item in given], isinstance(mesh, TriMesh)

    from ._fields import SparseSDF, require_cubes

    if compat is not None:
        from ._direct3d_s2 import unsigned_distances

        require_choice(where, "compat", compat, ("direct3d_s2",))
        made = [unsigned_distances(where, item, cells, keep_world=single, progress=progress, backend=backend) for item in meshes]
        return SparseSDF.batched([item.to(dtype) for item in made]).to(given[0].device)
    reach = require_band(where, "band", band)
    grow = _inflation(where, inflate, sign)
    items = []
    for item in meshes:
        placed, box, stored = place(where, item, cells, frame, keep_world=single, scale=_scale(where, cells, grow))
        require_cubes(where, box)
        grid, values = _measure(where, placed, Box(box.origin, box.voxel_size[0], cells), reach, sign, close, grow, backend, progress)
        grid = VoxelGrid.from_sorted(grid, resolution=cells, batch_size=1, frame=stored)
        items.append(SparseSDF(grid, values.to(dtype), reach, sign != "unsigned"))
    return SparseSDF.batched(items).to(given[0].device)


def _inflation(where: str, inflate: float | None, sign: Sign) -> float:
    if inflate is None:
        return 1.0 if sign == "flood" else 0.0
    if isinstance(inflate, bool) or not isinstance(inflate, (int, float)) or not 0 <= inflate < MAX_RESOLUTION:
        raise RangeError(f"{where}: inflate must be a number of cells, not negative; got {describe(inflate)}.")
    if sign == "unsigned" and inflate > 0:
        raise RangeError(f"{where}: an unsigned SDF has no outside to grow to; extract it at a level instead. Got inflate={inflate}.")
    return float(inflate)


def _scale(where: str, cells: Int3, grow: float) -> float:
    scale = min(SCALE, 1 - 2 * (MARGIN + grow) / max(cells))
    if scale <= 0:
        raise RangeError(f"{where}: resolution must exceed {2 * (MARGIN + grow):g} to leave a margin around the mesh; got {max(cells)}.")
    return scale


def _measure(
    where: str, mesh: TriMesh, box: Box, band: float, sign: Sign, close: bool, grow: float, backend: str, progress: bool
) -> tuple[Tensor, Tensor]:
    """Cells [0, x, y, z] and distances (n, 1) of one mesh as it lies in the grid."""
    target = close_holes(mesh, box, backend) if close and sign == "winding" and is_open(mesh) else mesh
    near = distance_band(target.vertices, target.faces, **box._asdict(), band=band + grow, backend=backend, progress=progress)
    distance = near.distance
    if sign != "unsigned":
        inside = _inside(mesh, near, box, sign, backend)
        if not bool(inside.any()) and len(inside) and sign == "winding":
            warnings.warn(
                f"{where}: no cell lies inside the mesh, so it has no solid. Its faces may wind inwards (flip them), or it is open "
                "(sign='flood' closes it).",
                MeshWarning,
                stacklevel=4,
            )
        distance = torch.where(inside, -distance, distance) - grow
    keep = distance.abs() < band
    if not bool(keep.any()):
        warnings.warn(f"{where}: no cell is nearer than {band:g} cells, so the result is empty.", EmptyResultWarning, stacklevel=4)
    return torch.nn.functional.pad(near.cells[keep], (1, 0)), distance[keep][:, None]


def _inside(mesh: TriMesh, near: DistanceBand, box: Box, sign: Sign, backend: str) -> Tensor:
    """(n,) bool: which cells of the band are inside."""
    if sign == "winding":
        return inside_mesh(mesh.vertices, mesh.faces, near.cells, **box._asdict(), backend=backend)
    coords = torch.nn.functional.pad(near.cells, (1, 0))
    blocked = near.distance <= WALL
    wall = VoxelGrid.from_sorted(coords[blocked], resolution=box.resolution, batch_size=1)
    inside = ~flood(wall, coords, backend=backend)
    # a cell of the wall is on the side of the cell beyond it, as seen from the surface
    origin = torch.tensor(box.origin, dtype=torch.float64, device=mesh.device)
    center = near.cells[blocked].double() + 0.5
    corners = (mesh.vertices.double()[mesh.faces[near.face[blocked].long()].long()] - origin) / box.voxel_size
    away = torch.nn.functional.normalize(center - closest_points(center, corners), dim=1, eps=1e-30)
    limits = torch.tensor(box.resolution, device=mesh.device)
    beyond = torch.minimum((center + away).floor().int().clamp_min(0), limits - 1).int()
    inside[blocked] = ~flood(wall, torch.nn.functional.pad(beyond, (1, 0)), backend=backend)
    return inside
