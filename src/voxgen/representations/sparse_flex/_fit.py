"""Weights and displacements that bring dual vertices to the surface."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import VoxelGrid
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.flexicubes import FlexSurface
from voxgen.ops.flexicubes._table import EDGES

from ._signs import CornerDistances

ROUNDS = 5
"""How often corners are moved."""
FAR = 0.02
"""Vertices farther than this from where they should be, in cells, pull at their corners."""
LIMIT = 0.49
"""How far a corner is moved along an axis at most, in cells."""


class Fitted(NamedTuple):
    """offsets: (m, 3) in cells.   alpha: (n, 8).   beta: (n, 12).   gamma: (n,). All float64."""

    offsets: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor


def fit_weights(grid: VoxelGrid, surface: FlexSurface, found: CornerDistances, dual: Tensor, progress: bool) -> Fitted:
    """What brings the dual vertices of a surface near the mesh. The surface keeps all its vertices, also those that no face uses; the
    grid's frame is its index frame.

    Args:
        dual: (n, 3) where in its cell the vertex of a cell with a single one should be; NaN where that is not known. Others should be where
            the tangent planes at the nearest points of those corners meet between which their crossings lie (in the sense of least squares,
            not far from the mean of the crossings, and in the cell).

    A few damped Gauss-Newton steps change the logarithms of the cell's weights as little as possible to get there; the weights stay in the
    range of a network's. Where that is not enough, as at sharp convex edges, corners follow the vertices that pull at them, and
    weights are fitted again. Gamma is greater where the planes differ more, so that quads are cut along sharp edges.
    """
    from ._fit_numba import FitProblem, fit, start

    corners = cube_corners(grid)
    n, m = len(grid), len(corners)
    first = torch.searchsorted(surface.vertex_cell, torch.arange(n + 1, dtype=torch.int32))
    problem = FitProblem(corners.index, found.value, found.normal, corners.coords[:, 1:].double(), first, surface.vertex_edges, dual)
    offsets, weights, gaps = (
        torch.zeros(m, 3, dtype=torch.float64),
        start(n),
        torch.zeros(len(surface.vertex_edges), 3, dtype=torch.float64),
    )
    fit(problem, offsets, torch.arange(n), weights, gaps)
    vertex, corner = _ends(surface.vertex_edges).nonzero().unbind(1)
    rows = corners.index[surface.vertex_cell.long()[vertex], corner].long()
    for _ in tqdm(range(ROUNDS), desc="fit", unit="round", disable=not progress):
        pulls = gaps.norm(dim=1)[vertex] > FAR
        if not bool(pulls.any()):
            break
        count = torch.zeros(m, 1, dtype=torch.float64).index_add(0, rows, pulls.double()[:, None])
        total = torch.zeros(m, 3, dtype=torch.float64).index_add(0, rows[pulls], gaps[vertex[pulls]])
        offsets = (offsets + total / count.clamp_min(1)).clamp(-LIMIT, LIMIT)
        moved = (count[:, 0] > 0)[corners.index.long()].any(1)
        fit(problem, offsets, moved.nonzero()[:, 0], weights, gaps)
    return Fitted(offsets, weights[:, :8].exp(), weights[:, 8:20].exp(), weights[:, 20])


def _ends(edges: Tensor) -> Tensor:
    """(v,) bits of edges → (v, 8) bool: the corners that they join."""
    held = torch.zeros(len(edges), 8, dtype=torch.bool)
    for edge, ends in enumerate(EDGES):
        held[:, ends] |= ((edges >> edge) & 1).bool()[:, None]
    return held
