"""The definition: every pair of neighbouring pixels with different triangles, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.rasterize import to_screen

from ._opposite import opposite_vertices
from ._query import EDGE_ON, HIGHEST, LOWEST, Query

_CHUNK = 1 << 18  # pairs at a time, about 1 kB each


def find(query: Query) -> Tensor:
    """See `Query`."""
    opposite = opposite_vertices(query.faces) if query.opposite is None else query.opposite
    found = []
    for axis in (0, 1):
        ids = query.face_id
        differ = ids[:, :, :-1] != ids[:, :, 1:] if axis == 0 else ids[:, :-1] != ids[:, 1:]
        for pairs in differ.nonzero().split(_CHUNK):
            found.append(_outlines(query, opposite, pairs, axis))
    return torch.cat(found)


def _outlines(query: Query, opposite: Tensor, pairs: Tensor, axis: int) -> Tensor:
    """The rows of the answer among pairs (n, 3) of view, row and column of the first pixel."""
    window, (view, row, column) = query.window, pairs.unbind(1)
    next_row, next_column = row + axis, column + 1 - axis
    id0, id1 = query.face_id[view, row, column], query.face_id[view, next_row, next_column]
    nearer = query.depth[view, row, column] <= query.depth[view, next_row, next_column]
    second = ((id0 < 0) | ((id1 >= 0) & ~nearer)).long()
    face = torch.where(second == 0, id0, id1).long()
    corner = query.faces[face].long()
    across = opposite[face].long()
    # the face's corners and the vertices across its edges, with the owner's centre as origin
    vertex = torch.cat((corner, across.clamp(min=0)), 1)
    if len(query.positions) > 1:
        vertex = vertex + (view * query.positions.shape[1])[:, None]
    x, y, _, w = to_screen(query.positions.reshape(-1, 4)[vertex], window.height, window.width)
    along = x - (column + second * (1 - axis) + window.left + 0.5)[:, None] * w
    beside = y - (row + second * axis + window.top + 0.5)[:, None] * w
    if axis == 1:
        along, beside = beside, along
    ends = torch.tensor([[1, 2], [2, 0], [0, 1]], device=face.device)
    (ua, ub), (va, vb), (wa, wb) = (t[:, ends].unbind(2) for t in (along, beside, w))
    denominator = wa * vb - wb * va
    crosses = ((va < 0) != (vb < 0)) & (denominator != 0) & ((denominator > 0) == (vb > va))
    forward = (1 - 2 * second).double()[:, None]
    distance = torch.where(crosses, forward * ((ua * vb - va * ub) / denominator), -torch.inf)
    best, edge = distance.max(1)
    rise, run = denominator.abs(), (wa * ub - wb * ua).abs()
    steep = rise >= run if axis == 0 else rise > run
    outline = steep & ((across < 0) | _same_side(along, beside, w, ends))
    pick = edge[:, None]
    kept = (best > LOWEST) & (best < HIGHEST) & outline.gather(1, pick)[:, 0]
    pixel = (view * window.rows + row) * window.columns + column
    edge_ends = corner.gather(1, ends[edge])
    rows = torch.stack((pixel, torch.full_like(pixel, axis), second, edge_ends[:, 0], edge_ends[:, 1]), 1)
    return rows[kept]


def _same_side(along: Tensor, beside: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    """(n, 3) bool: whether the vertex across an edge, in columns 3 to 5, lies on the side of the face's own corner, or edge-on."""
    u, v = along[:, ends], beside[:, ends]
    (ua, ub), (va, vb), (wa, wb) = u.unbind(2), v.unbind(2), w[:, ends].unbind(2)
    sides = []
    for offset in (0, 3):
        part = slice(offset, offset + 3)
        one, two, three = (va * wb - wa * vb) * along[:, part], (wa * ub - ua * wb) * beside[:, part], (ua * vb - va * ub) * w[:, part]
        side = one + two + three
        sides.append(torch.where(side.abs() <= EDGE_ON * (one.abs() + two.abs() + three.abs()), 0.0, side))
    return torch.where(sides[1] == 0, True, (sides[0] > 0) == (sides[1] > 0))
