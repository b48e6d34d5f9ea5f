"""The edges of triangles at pairs of pixels: where they cross the line between the centres, and which of them are outlines."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.rasterize import to_screen

from ._query import EDGE_ON, Query

ENDS = ((1, 2), (2, 0), (0, 1))
"""The two corners of edge 0, 1 and 2, each opposite to the corner of its number."""


def examine(query: Query, pairs: Tensor, corner: Tensor, across: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges 0 to 2 of a triangle at each pair of pixels, seen from the centre of the pixel that owns the pair.

    Args:
        pairs: (n, 5) int64: view, row and column of the first pixel; 0 if the second lies right of it, 1 if below; 1 if it owns.
        corner: (n, 3) vertices of the triangles.   across: (n, 3) third vertices of those across their edges, -1 for none.
    Returns:
        (n, 3) each: distance of the crossing towards the other pixel, which is at 1, -inf where there is none; whether the edge is steep
        enough; whether it is an outline.
    """
    window, (view, row, column, axis, second) = query.window, pairs.unbind(1)
    vertex = torch.cat((corner, across.clamp(min=0)), 1)
    if len(query.positions) > 1:
        vertex = vertex + (view * query.positions.shape[1])[:, None]
    x, y, _, w = to_screen(query.positions.reshape(-1, 4)[vertex], window.height, window.width)
    x = x - (column + second * (1 - axis) + window.left + 0.5)[:, None] * w
    y = y - (row + second * axis + window.top + 0.5)[:, None] * w
    level = (axis == 0)[:, None]
    along, beside = torch.where(level, x, y), torch.where(level, y, x)
    ends = torch.tensor(ENDS, device=corner.device)
    (ua, ub), (va, vb), (wa, wb) = (t[:, ends].unbind(2) for t in (along, beside, w))
    denominator = wa * vb - wb * va
    crosses = ((va < 0) != (vb < 0)) & (denominator != 0) & ((denominator > 0) == (vb > va))
    forward = (1 - 2 * second).double()[:, None]
    distance = torch.where(crosses, forward * ((ua * vb - va * ub) / denominator), -torch.inf)
    rise, run = denominator.abs(), (wa * ub - wb * ua).abs()
    steep = torch.where(level, rise >= run, rise > run)
    sides = []
    for offset in (0, 3):
        part = slice(offset, offset + 3)
        one, two, three = (va * wb - wa * vb) * along[:, part], (wa * ub - ua * wb) * beside[:, part], (ua * vb - va * ub) * w[:, part]
        side = one + two + three
        sides.append(torch.where(side.abs() <= EDGE_ON * (one.abs() + two.abs() + three.abs()), 0.0, side))
    same_side = (sides[1] == 0) | ((sides[0] > 0) == (sides[1] > 0))
    return distance, steep, (across < 0) | same_side
