"""SparseSDF → SparseFlex → O-Voxel."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.aliases import Float3, Int3
from voxgen.core.errors import FrameError, RangeError
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.lookup import lookup_cells
from voxgen.representations.ovoxel import OVoxel
from voxgen.representations.sparse_sdf import SparseSDF

if TYPE_CHECKING:
    from ._fields import SparseFlex

STEPS = tuple(itertools.product((0, 1), repeat=3))


def from_sparse_sdf(sdf: SparseSDF) -> SparseFlex:
    """The same distances as a field at corners: centres of the SDF's cells are corners now. Nothing is resampled.

    Args:
        sdf: signed.
    Returns:
        SparseFlex of one cell less along each axis, in a frame moved by half a cell, with the cells that the surface passes through
        (those with all eight centres stored, and both signs). Differentiable. Closed where the SDF's marching cubes are.
    Raises:
        RangeError: an unsigned SDF.   FrameError: a grid that is one cell thick, which has no corners inside.
    """
    from ._fields import SparseFlex

    where = "SparseFlex.from_sparse_sdf"
    if not sdf.signed:
        raise RangeError(f"{where}: signed distances are needed; these are unsigned. Use SparseFlex.from_mesh, which keeps sheets open.")
    if min(sdf.resolution) < 2:
        raise FrameError(f"{where}: the grid must be two cells thick at least; got {sdf.resolution}.")
    steps = torch.tensor([(0, *step) for step in STEPS], dtype=torch.int32, device=sdf.device)
    rows = lookup_cells(sdf.grid, (sdf.coords[:, None] + steps).reshape(-1, 4)).long().reshape(-1, 8)
    inside = sdf.sdf_cells.detach()[:, 0][rows.clamp_min(0)] < 0
    passed = (rows >= 0).all(1) & inside.any(1) & ~inside.all(1)
    origin = tuple(o + v / 2 for o, v in zip(sdf.frame.origin, sdf.frame.voxel_size, strict=True))
    grid = VoxelGrid.from_sorted(
        sdf.coords[passed].contiguous(),
        resolution=cast(Int3, tuple(n - 1 for n in sdf.resolution)),
        batch_size=sdf.batch_size,
        frame=Frame(cast(Float3, origin), sdf.frame.voxel_size, sdf.frame.up),
    )
    corners = lookup_cells(sdf.grid, cube_corners(grid).coords).long()
    return SparseFlex(grid, sdf.sdf.index_select(0, corners)[:, 0])


def to_ovoxel(flex: SparseFlex) -> OVoxel:
    """The surface as an O-Voxel on the same grid.

    Returns:
        OVoxel with the cells that a quad touches: dual vertices, flags of the edges with a quad, crossing signs, gamma as split
        weights. A cell with several dual vertices (a cell that two sheets pass) takes their mean, which is all that an O-Voxel can
        say; all others give the same surface. Differentiable in the dual vertices and split weights. No materials.
    Warns:
        EmptyResultWarning: there is no surface.
    Source: both are dual: TRELLIS.2 (arXiv 2512.14692) flags edges where SparseFlex has signs.
    """
    found = flex.surface()
    cells = found.vertex_cell.long()[found.quads.long()]
    coords = flex.coords[cells]
    owner = cells.amin(1)  # the edge meets its highest corner
    axis = (coords[:, :, 1:].amin(1) == coords[:, :, 1:].amax(1)).int().argmax(1)
    intersected = torch.zeros(len(flex), 3, dtype=torch.bool, device=flex.device)
    intersected[owner, axis] = True
    upwards = flex.sdf.detach()[flex.corners.index[:, 7].long()] >= 0
    used = torch.zeros(len(flex), dtype=torch.bool, device=flex.device)
    used[cells.flatten()] = True
    low = flex.frame.to_world(flex.grid.cells.to(found.vertices.dtype))
    size = torch.tensor(flex.frame.voxel_size, dtype=found.vertices.dtype, device=flex.device)
    local = (_mean_of_cells(found.vertices, found.vertex_cell.long(), len(flex)) - low) / size
    return OVoxel(
        flex.grid.select(used),
        local[used],
        intersected[used],
        (intersected & upwards[:, None])[used],
        None if flex.gamma is None else flex.gamma[used][:, None],
    )


def _mean_of_cells(vertices: Tensor, cell: Tensor, cells: int) -> Tensor:
    count = torch.zeros(cells, 1, dtype=vertices.dtype, device=vertices.device)
    count = count.index_add(0, cell, torch.ones_like(vertices[:, :1]))
    return vertices.new_zeros(cells, 3).index_add(0, cell, vertices) / count.clamp_min(1)
