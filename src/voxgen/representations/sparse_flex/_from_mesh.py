"""Mesh → SparseFlex."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.aliases import Float3, Int3
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import EmptyResultWarning, MeshError
from voxgen.core.frame import FIT_SCALE
from voxgen.ops.dual_grid import dual_grid
from voxgen.ops.flexicubes import flexicubes
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.mesh_distance import OrientedMesh
from voxgen.ops.surface_cells import surface_cells
from voxgen.representations._placement import place, require_meshes
from voxgen.representations.sparse_sdf._fields import require_cubes

from ._fit import fit_weights
from ._signs import corner_distances

if TYPE_CHECKING:
    from ._fields import SparseFlex

ROOM = 0.02
"""Corners are at least this far from the surface, in cells, where weights are fitted: the crossing of an edge could not be moved away
from a corner whose value is nearly 0."""


def from_mesh(
    mesh: TriMesh | Sequence[TriMesh],
    resolution: int | Int3,
    *,
    fit: bool = True,
    frame: Frame | Literal["fit"] = "fit",
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    progress: bool = False,
) -> SparseFlex:
    """The field of a mesh, open or closed, or of each of a list of meshes as a batch.

    Cells are those that the mesh touches. A corner's value is its distance to the nearest point of the mesh, with the sign of the
    side it lies on there: by the normal of the face, or the mean normal of the faces around the edge or vertex that is nearest.
    So inside and outside exist near the surface only, and a sheet has two sides without an inside.

    What comes back from `to_mesh`:
    - closed meshes are closed, unless a wall is thinner than about a cell: no corner lies inside such a wall, and it has holes
      or vanishes. `mesh_report` tells.
    - open meshes stay open. Without `fit` the border comes back within half a cell; with it within some hundredths, but for places
      where a cell's edges do not reach it.
    - two sheets closer than two cells, with the same side between them, become one where a cell touches both.
    - sharp edges and corners are kept with `fit`, as far as one vertex a cell can and the cell's edges reach: to about a quarter of a
      cell. Without it they are cut by up to a cell.
    - faces must agree in their winding, as for any signs: where neighbours disagree, or on a Möbius strip, the surface is cut along the
      edge between them. Faces given twice (once for each side, too) count once, with the winding of the first.

    Args:
        mesh: triangles in world units, finite, any number of parts.
        resolution: cells an axis, one number or three, 1 to 65,536.
        fit: find displacements, alpha, beta and gamma that bring the dual vertices to where an O-Voxel has them (`dual_grid`), in the range
            that a network's channels can say; values nearer to 0 than 0.02 cells are moved there, which leaves the weights room.
            False leaves them out: values are exact, and vertices are means of crossings.
        frame: where the grid lies. "fit" puts the mesh's bounding box in a cube of which its longest side takes 0.99999, and `to_mesh`
            gives back world positions; each mesh of a list is brought to the unit cube, because a batch has one frame. A Frame takes
            the mesh as it lies there; it must have cubes as cells.
        dtype: of the fields: float32 or float64. Distances are computed in float64.
        backend: see docs/backends.md.
        progress: show bars.
    Returns:
        SparseFlex on the mesh's device, computed on the CPU. Not differentiable.
    Raises:
        MeshError: no faces, index out of range, vertices not finite, only faces without area, an empty list.
        RangeError, DtypeError: arguments that make no sense.   FrameError: geometry outside the given frame.
    Warns:
        EmptyResultWarning: no corner of a cell lies on the other side (a mesh smaller than a cell).
    Memory: grows with the surface: about 1,200 bytes a cell at the peak.
    Source: SparseFlex (arXiv 2503.21732) trains such fields from renderings; how to make one of a mesh is ours, with signs by
        J. A. Bærentzen and H. Aanæs, Signed distance computation using the angle weighted pseudonormal (2005).
    """
    from ._fields import SparseFlex

    where = "SparseFlex.from_mesh"
    cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    given = require_meshes(where, mesh)
    items = []
    for item in given:
        placed, box, stored = place(where, item.to("cpu"), cells, frame, keep_world=isinstance(mesh, TriMesh), scale=FIT_SCALE)
        require_cubes(where, box)
        made = _convert(where, placed, box, cells, fit, backend, progress)
        size = stored.voxel_size[0]
        grid = VoxelGrid.from_sorted(made.grid.coords, resolution=cells, batch_size=1, frame=stored)
        lengths = {"sdf": size, "offsets": size}
        items.append(SparseFlex(grid, **{name: (value * lengths.get(name, 1.0)).to(dtype) for name, value in made.tensors().items()}))
    return SparseFlex.batched(items).to(given[0].device)


def _convert(where: str, mesh: TriMesh, box: Frame, cells: Int3, fit: bool, backend: str, progress: bool) -> SparseFlex:
    """One mesh as it lies in the grid; everything in cells, float64."""
    from ._fields import SparseFlex

    surface = OrientedMesh.of(mesh.replace(vertices=box.to_index(mesh.vertices.detach().double())))
    if len(surface.faces) == 0:
        raise MeshError(f"{where}: mesh must have a face with area; all of its {mesh.num_faces} faces are degenerate.")
    place: dict[str, Float3 | Int3] = {"origin": (0.0, 0.0, 0.0), "voxel_size": (1.0, 1.0, 1.0), "resolution": cells}
    touched = surface_cells(surface.vertices, surface.faces, **place, backend=backend)  # pyright: ignore[reportArgumentType]
    unit = Frame((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), box.up)
    grid = VoxelGrid.from_sorted(torch.nn.functional.pad(touched, (1, 0)), resolution=cells, batch_size=1, frame=unit)
    found = corner_distances(surface, grid, backend, progress)
    if fit:
        away = found.value.abs().clamp_min(ROOM)
        found = found._replace(value=torch.where(found.value < 0, -away, away))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)  # said below, in words of this function
        plain = flexicubes(grid, found.value, backend=backend)
        every = flexicubes(grid, found.value, keep_unused=True, backend=backend) if fit else plain
    if len(plain.faces) == 0:
        warnings.warn(
            f"{where}: the surface of this field is empty: no edge between cells has its ends on two sides. The mesh is smaller than a "
            "few cells, or its walls are thinner than one. Use a higher resolution, or a smaller box around the mesh.",
            EmptyResultWarning,
            stacklevel=4,
        )
    if not fit:
        return SparseFlex(grid, found.value)
    return SparseFlex(grid, found.value, *fit_weights(grid, every, found, _dual_vertices(surface, grid, backend), progress))


def _dual_vertices(surface: OrientedMesh, grid: VoxelGrid, backend: str) -> Tensor:
    """(n, 3) float64: the point of each cell that is nearest to the planes and borders of what passes it; NaN where no edge is crossed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        found = dual_grid(
            surface.vertices, surface.faces, origin=(0.0, 0.0, 0.0), voxel_size=1.0, resolution=grid.resolution, backend=backend
        )
    rows = lookup_cells(grid, torch.nn.functional.pad(found.cells, (1, 0))).long()
    dual = torch.full((len(grid), 3), torch.nan, dtype=torch.float64)
    dual[rows[rows >= 0]] = found.dual[rows >= 0].double()
    return dual
