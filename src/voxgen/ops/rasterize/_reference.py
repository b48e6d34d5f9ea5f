"""The definition: every pixel against every face, in chunks of faces."""

from __future__ import annotations

import torch
from torch import Tensor

from ._barycentrics import to_screen
from ._coverage import covers
from ._query import Query, View, Window

_PAIRS = 1 << 19  # pixel × face pairs in one chunk, about 400 bytes each


def visible_faces(query: Query) -> Tensor:
    """See `Query`: (b, rows, columns) int32 index of the nearest face, -1 for none."""
    faces = query.faces.long().sort(dim=1).values
    return torch.stack([_one_view(view, faces, query.window) for view in query.views()])


def _one_view(view: View, faces: Tensor, window: Window) -> Tensor:
    device = view.positions.device
    corners = torch.stack(to_screen(view.positions, window.height, window.width), -1)[faces[view.first : view.first + view.count]]
    pixels = torch.arange(window.pixels, device=device)
    column = (pixels % window.columns + window.left).double() + 0.5
    row = (pixels // window.columns + window.top).double() + 0.5
    best_depth = torch.full((window.pixels,), torch.inf, dtype=torch.float64, device=device)
    best_id = torch.full((window.pixels,), -1, dtype=torch.int64, device=device)
    chunk = max(1, _PAIRS // window.pixels)
    for start in range(0, view.count, chunk):
        seen, depth = covers(corners[start : start + chunk, None], column, row)
        ids = torch.arange(view.first + start, view.first + start + len(depth), device=device)[:, None]
        if view.lowest_depth is not None and view.lowest_id is not None:
            lowest_depth, lowest_id = view.lowest_depth.flatten(), view.lowest_id.flatten()
            seen &= (depth > lowest_depth) | ((depth == lowest_depth) & (ids > lowest_id))
        depth = torch.where(seen, depth, torch.inf)
        nearest = depth.amin(0)
        first = torch.where(seen & (depth == nearest), ids, view.first + view.count).amin(0)
        closer = nearest < best_depth  # earlier chunks have the lower ids, so they keep equal depths
        best_depth, best_id = torch.where(closer, nearest, best_depth), torch.where(closer, first, best_id)
    return best_id.reshape(window.rows, window.columns).int()
