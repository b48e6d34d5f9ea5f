"""What the engines get, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from voxgen.core.grid import VoxelGrid
from voxgen.ops.cube_corners import CubeCorners


class Problem(NamedTuple):
    """A field on the corners of cells, checked; floats of one dtype, float32 or float64.

    grid: (n cells).   corners: theirs, m of them.   sdf: (m,).   positions: (m, 3).
    alpha: (n, 8) or None.   beta: (n, 12) or None; None stands for ones.
    keep: (n,) bool cells that get vertices, None for all of them; the others still count as neighbours of problematic cubes.
    strict: quads look by whether the first corner of their edge is above 0; else by whether it is not below.
    """

    grid: VoxelGrid
    corners: CubeCorners
    sdf: Tensor
    positions: Tensor
    alpha: Tensor | None
    beta: Tensor | None
    keep: Tensor | None
    strict: bool


class Topology(NamedTuple):
    """Which dual vertices there are and what they join.

    case: (n,) uint8 pattern of signs of each cell, after the replacement of problematic pairs; bit k: corner k is inside.
    cell: (v,) int32 cell of each vertex, ascending; those of one cell in the order of the table.
    edges: (v,) int16, bit e: the vertex averages the crossing of edge e of its cell.
    quads: (q, 4) int32 vertices, wound so that the normal points to positive values.
    quad_cell, quad_axis: (q,) int32 and uint8; a quad stands around the edge from corner 0 of this cell along this axis.
        Quads are ordered by both.
    """

    case: Tensor
    cell: Tensor
    edges: Tensor
    quads: Tensor
    quad_cell: Tensor
    quad_axis: Tensor


Extract = Callable[[Problem], tuple[Topology, Tensor]]
"""An engine: topology, and the positions (v, 3) of the vertices, differentiable in the floats of the problem."""
