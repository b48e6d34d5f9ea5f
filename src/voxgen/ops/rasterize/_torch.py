"""Z-buffer in plain torch, for any device: every face against the pixels of its box, nearest first by scattered minima."""

from __future__ import annotations

import torch
from torch import Tensor

from ._barycentrics import edge_functions, to_screen
from ._bounds import Boxes, boxes_of
from ._coverage import covers
from ._query import Query, View, Window

_PAIRS = 1 << 19  # pairs of a face and a pixel at a time, about 800 bytes each


def visible_faces(query: Query) -> Tensor:
    """See `Query`: (b, rows, columns) int32 index of the nearest face, -1 for none."""
    return torch.stack([_one_view(view, query.faces, query.window) for view in query.views()])


def _one_view(view: View, faces: Tensor, window: Window) -> Tensor:
    boxes = boxes_of(view, faces, window)
    ordered = faces.index_select(0, boxes.face).long().sort(dim=1).values
    screen = torch.stack(to_screen(view.positions, window.height, window.width), -1)
    best_depth = torch.full((window.pixels,), torch.inf, dtype=torch.float64, device=faces.device)
    best_id = torch.full((window.pixels,), -1, dtype=torch.int64, device=faces.device)
    for start in range(0, boxes.pairs, _PAIRS):
        box, row, column = _pairs(boxes, start, min(start + _PAIRS, boxes.pairs))
        corners = screen.index_select(0, ordered.index_select(0, box).flatten()).view(-1, 3, 4)
        w, place = corners[..., 3], (column.double() + 0.5, row.double() + 0.5)
        a = edge_functions(corners[..., 0] - place[0][:, None] * w, corners[..., 1] - place[1][:, None] * w)
        near = ((a >= 0).all(1) | (a <= 0).all(1)).nonzero()[:, 0]  # most pairs end here
        seen, depth = covers(corners[near], place[0][near], place[1][near])
        pixel = ((row - window.top) * window.columns + column - window.left)[near]
        face = boxes.face.index_select(0, box[near])
        if view.lowest_depth is not None and view.lowest_id is not None:
            lowest_depth, lowest_id = view.lowest_depth.flatten()[pixel], view.lowest_id.flatten()[pixel]
            seen &= (depth > lowest_depth) | ((depth == lowest_depth) & (face > lowest_id))
        pixel, face, depth = pixel[seen], face[seen], depth[seen]
        before = best_depth.clone()
        best_depth.scatter_reduce_(0, pixel, depth, "amin")
        best_id[best_depth < before] = len(faces)
        first = depth == best_depth[pixel]
        best_id.scatter_reduce_(0, pixel[first], face[first], "amin")
    return best_id.reshape(window.rows, window.columns).int()


def _pairs(boxes: Boxes, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Box, row and column of the pairs number start … stop - 1; a box may be cut."""
    pair = torch.arange(start, stop, device=boxes.ends.device)
    box = torch.searchsorted(boxes.ends, pair, right=True)
    before = torch.nn.functional.pad(boxes.ends, (1, 0))
    place, columns = pair - before[box], boxes.columns[box]
    return box, boxes.top[box] + place // columns, boxes.left[box] + place % columns
