"""Weights and displacements that bring dual vertices to the surface."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

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


def fit_weights(surface: FlexSurface, found: CornerDistances, progress: bool) -> Fitted:
    """What brings dual vertices near the mesh, for the cells that a surface was extracted from, all its vertices kept.

    Each dual vertex should be where the tangent planes at the nearest points of those corners meet between which its crossings lie (in
    the sense of least squares, not far from the mean of the crossings, and in its cell). A few damped Gauss-Newton steps change
    the logarithms of the cell's weights as little as possible to get there; the weights stay in the range of a network's. Where that is
    not enough, as at sharp convex edges, corners follow the vertices that pull at them, and weights are fitted again.
    Gamma is greater where the planes differ more, so that quads are cut along sharp edges.
    """
    from ._fit_numba import FitProblem, fit, start

    field = surface.field
    n, m = len(field.index), len(found.value)
    first = torch.searchsorted(surface.vertex_cell, torch.arange(n + 1, dtype=torch.int32))
    problem = FitProblem(field.index, found.value, found.normal, field.positions.double(), first, surface.vertex_edges)
    offsets, weights = torch.zeros(m, 3, dtype=torch.float64), start(n)
    gaps = fit(problem, offsets, weights)
    vertex, corner = _ends(surface.vertex_edges).nonzero().unbind(1)
    rows = field.index[surface.vertex_cell.long()[vertex], corner].long()
    for _ in tqdm(range(ROUNDS), desc="fit", unit="round", disable=not progress):
        pull = gaps * (gaps.norm(dim=1, keepdim=True) > FAR)
        count = torch.zeros(m, 1, dtype=torch.float64).index_add(0, rows, (pull != 0).any(1).double()[vertex][:, None])
        total = torch.zeros(m, 3, dtype=torch.float64).index_add(0, rows, pull[vertex])
        if not bool(count.any()):
            break
        offsets = (offsets + total / count.clamp_min(1)).clamp(-LIMIT, LIMIT)
        gaps = fit(problem, offsets, weights)
    return Fitted(offsets, weights[:, :8].exp(), weights[:, 8:20].exp(), weights[:, 20])


def _ends(edges: Tensor) -> Tensor:
    """(v,) bits of edges → (v, 8) bool: the corners that they join."""
    held = torch.zeros(len(edges), 8, dtype=torch.bool)
    for edge, ends in enumerate(EDGES):
        held[:, ends] |= ((edges >> edge) & 1).bool()[:, None]
    return held
