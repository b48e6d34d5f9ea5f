"""The definition: every pair of neighbouring pixels with different triangles, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ._examine import ENDS, examine
from ._opposite import opposite_vertices
from ._query import HIGHEST, LOWEST, Query

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
    place = torch.stack((view, row, column, torch.full_like(view, axis), second), 1)
    distance, steep, outline = examine(query, place, corner, opposite[face].long())
    best, edge = distance.max(1)
    kept = (best > LOWEST) & (best < HIGHEST) & (steep & outline).gather(1, edge[:, None])[:, 0]
    pixel = (view * window.rows + row) * window.columns + column
    edge_ends = corner.gather(1, torch.tensor(ENDS, device=face.device)[edge])
    rows = torch.stack((pixel, torch.full_like(pixel, axis), second, edge_ends[:, 0], edge_ends[:, 1]), 1)
    return rows[kept]
