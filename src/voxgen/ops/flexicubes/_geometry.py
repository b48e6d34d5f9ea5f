"""Crossings of edges, and dual vertices as their means, in plain torch for any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from voxgen.ops.segment import segment_reduce

from ._problem import Problem, Topology
from ._table import EDGES


def incidences(edges: Tensor) -> tuple[Tensor, Tensor]:
    """(v,) int16 bits of edges → the vertex and the edge of each crossing that a vertex averages, (i,) int64, in that order."""
    bits = edges[:, None] >> torch.arange(12, dtype=edges.dtype, device=edges.device) & 1
    vertex, edge = bits.nonzero().unbind(1)
    return vertex, edge


def place(problem: Problem, topology: Topology) -> Tensor:
    """(v, 3): each dual vertex is the mean of its crossings, weighted by beta."""
    vertex, edge = incidences(topology.edges)
    cell = topology.cell.long()[vertex]
    points = crossings(problem.corners.index, problem.sdf, problem.positions, cell, edge, problem.alpha)
    offsets = torch.searchsorted(vertex, torch.arange(len(topology.cell) + 1, device=vertex.device))
    if problem.beta is None:
        return segment_reduce(points, offsets, "mean", backend="torch")
    weight = embedding(cell * 12 + edge, problem.beta.reshape(-1, 1))
    total = segment_reduce(torch.cat((weight * points, weight), 1), offsets, "sum", backend="torch")
    return total[:, :3] / total[:, 3:]


def crossings(index: Tensor, sdf: Tensor, positions: Tensor, cell: Tensor, edge: Tensor, alpha: Tensor | None) -> Tensor:
    """(i, 3): where edges of cells are crossed. Gathers by `embedding`, whose backward pass adds in a fixed order."""
    ends = torch.tensor(EDGES, device=cell.device)[edge]
    rows = index[cell[:, None], ends]
    values = embedding(rows, torch.cat((sdf[:, None], positions), 1))
    level, points = values[..., 0], values[..., 1:]
    if alpha is not None:
        level = level * embedding(cell[:, None] * 8 + ends, alpha.reshape(-1, 1))[..., 0]
    return between(level, points)


def between(level: Tensor, points: Tensor) -> Tensor:
    """(..., 2) values of different signs and (..., 2, 3) points → (..., 3) the zero of the line between them.

    The middle where both values are so small that their difference is 0: the signs of the field say that there is a zero.
    """
    span = level[..., 0] - level[..., 1]
    share = torch.where(span == 0, 0.5, level[..., 0] / torch.where(span == 0, 1.0, span))
    return points[..., 0, :] + share[..., None] * (points[..., 1, :] - points[..., 0, :])
