"""Outlines beyond the triangle that a pixel sees: found by walking over the surface towards the background, triangle by triangle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.ops.rasterize import to_screen

from ._examine import ENDS, examine
from ._query import HIGHEST, LOWEST, Query

_AROUND = 1
"""Triangles with a vertex up to this many pixels from a border of the background can be walked on, beside those that are seen there."""


def walk(query: Query, found: Tensor, steps: int) -> Tensor:
    """More rows of the answer that `Query` describes, for pairs of a face and the background that `found` has not.

    From the triangle that is seen, cross the edge through which the line to the other pixel's centre leaves it, then the next one,
    until an edge is an outline.
    """
    window = query.window
    pairs = _borders(query, found)
    view, row, column, axis, second = pairs.unbind(1)
    face = query.face_id[view, row + axis * second, column + (1 - axis) * second].long()
    table = EdgeTable.near(query, pairs, face)
    corner, entered = query.faces[face].long(), torch.zeros(len(face), 3, dtype=torch.bool, device=face.device)
    ends = torch.tensor(ENDS, device=face.device)
    answers = [found[:0]]
    for step in range(steps + 1):
        if not len(pairs):
            break
        third = table.across(corner)
        distance, steep, outline = examine(query, pairs, corner, third)
        best, edge = torch.where(entered, -torch.inf, distance).max(1)
        pick = edge[:, None]
        across, outline, steep = (t.gather(1, pick)[:, 0] for t in (third, outline, steep))
        side = corner.gather(1, ends[edge])
        near = (best > LOWEST) & (best < HIGHEST) & table.knows(side)
        if step:  # the engine has looked at the edges of the triangle that is seen
            view, row, column, axis, second = pairs.unbind(1)
            pixel = (view * window.rows + row) * window.columns + column
            rows = torch.stack((pixel, axis, second, side[:, 0], side[:, 1]), 1)
            answers.append(rows[near & outline & steep])
        on = near & ~outline
        pairs, corner = pairs[on], torch.cat((across[:, None], side), 1)[on]
        entered = torch.tensor([True, False, False], device=face.device).expand(len(pairs), 3)
    return torch.cat(answers)


def _borders(query: Query, found: Tensor) -> Tensor:
    """(n, 5) pairs of a face and the background that are not in `found`, as `examine` takes them."""
    window, ids = query.window, query.face_id
    seen = ids >= 0
    pairs = []
    for axis in (0, 1):
        one, other = (seen[:, :, :-1], seen[:, :, 1:]) if axis == 0 else (seen[:, :-1], seen[:, 1:])
        open_ = one != other
        had = found[found[:, 1] == axis, 0]
        view, place = had // window.pixels, had % window.pixels
        open_ = open_.index_put((view, place // window.columns, place % window.columns), torch.tensor(False, device=ids.device))
        at = open_.nonzero()
        second = (~seen[at[:, 0], at[:, 1], at[:, 2]]).long()
        pairs.append(torch.cat((at, torch.full_like(at[:, :1], axis), second[:, None]), 1))
    return torch.cat(pairs)


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The edges of the triangles around the borders of the background.

    Args:
        marked: (v,) bool: vertices all of whose triangles are in the table.
        keys: (e,) int64 edges, ascending.   counts: (e,) triangles of each.   sums: (e,) of their third vertices.
    """

    marked: Tensor
    keys: Tensor
    counts: Tensor
    sums: Tensor

    @staticmethod
    def near(query: Query, pairs: Tensor, face: Tensor) -> EdgeTable:
        """Around pairs (n, 5) and with the vertices of the triangles (n,) that are seen there."""
        window, (view, row, column, axis, _) = query.window, pairs.unbind(1)
        border = torch.zeros(query.face_id.shape, device=face.device)
        border[view, row, column] = 1.0
        border[view, row + axis, column + 1 - axis] = 1.0
        border = torch.nn.functional.max_pool2d(border[:, None], 2 * _AROUND + 1, 1, _AROUND)[:, 0] > 0
        marked = torch.zeros(query.positions.shape[1], dtype=torch.bool, device=face.device)
        for i in range(len(border)):
            x, y, _, w = to_screen(query.positions[i if len(query.positions) > 1 else 0], window.height, window.width)
            ahead = w > 0
            at_column, at_row = (t / torch.where(ahead, w, 1) - low for t, low in ((x, window.left), (y, window.top)))
            ahead &= (at_column >= 0) & (at_column < window.columns) & (at_row >= 0) & (at_row < window.rows)
            inside = ahead.nonzero()[:, 0]
            marked[inside] |= border[i, at_row[inside].long(), at_column[inside].long()]
        marked[query.faces[face].flatten().long()] = True
        triangles = query.faces[marked[query.faces.long()].any(1)].long()
        triangles = triangles[(triangles != triangles.roll(1, 1)).all(1)]  # those that name a vertex twice are none
        keys, inverse, counts = _keys(triangles, len(marked)).flatten().unique(return_inverse=True, return_counts=True)
        sums = torch.zeros_like(keys).index_add(0, inverse, triangles.flatten())
        return EdgeTable(marked, keys, counts, sums)

    def knows(self, side: Tensor) -> Tensor:
        """(n,) bool: whether all triangles of edges with ends (n, 2) are in the table."""
        return self.marked[side].any(1)

    def across(self, corner: Tensor) -> Tensor:
        """(n, 3) the third vertices across the edges of triangles (n, 3), -1 where there is none or more than one."""
        keys = _keys(corner, len(self.marked))
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        pair = (self.keys[place] == keys) & (self.counts[place] == 2)
        return torch.where(pair, self.sums[place] - corner, -1)


def _keys(corner: Tensor, vertices: int) -> Tensor:
    """(n, 3) one number for each edge of triangles (n, 3), whatever its direction."""
    one, other = corner.roll(-1, 1), corner.roll(-2, 1)
    return torch.minimum(one, other) * vertices + torch.maximum(one, other)
