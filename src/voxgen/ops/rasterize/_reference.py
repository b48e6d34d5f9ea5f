"""The definition: every pixel against every face, in chunks of faces."""

from __future__ import annotations

import torch
from torch import Tensor

from ._barycentrics import edge_functions, to_screen

_PAIRS = 1 << 19  # pixel × face pairs in one chunk, about 400 bytes each


def visible_faces(positions: Tensor, faces: Tensor, height: int, width: int, behind: Tensor | None) -> Tensor:
    """(b, v, 4), (f, 3) → (b, h, w) int32 index of the nearest face, -1 for none."""
    # Corners in order of their index: faces of the same three vertices then have exactly the same depth.
    faces = faces.long().sort(dim=1).values
    views = [_one_view(p, faces, height, width, None if behind is None else behind[i].flatten()) for i, p in enumerate(positions)]
    return torch.stack(views)


def _one_view(positions: Tensor, faces: Tensor, height: int, width: int, behind: Tensor | None) -> Tensor:
    device = positions.device
    corners = torch.stack(to_screen(positions, height, width), -1)[faces]
    pixels = torch.arange(height * width, device=device)
    column, row = (pixels % width).double() + 0.5, (pixels // width).double() + 0.5
    lowest_depth, lowest_id = None, None
    if behind is not None:
        lowest_id = behind.long()
        seen, depth = _hits(corners[lowest_id.clamp(min=0)], column, row)
        lowest_depth = torch.where(seen & (lowest_id >= 0), depth, torch.inf)
    best_depth = torch.full((height * width,), torch.inf, dtype=torch.float64, device=device)
    best_id = torch.full((height * width,), -1, dtype=torch.int64, device=device)
    chunk = max(1, _PAIRS // (height * width))
    for start in range(0, len(faces), chunk):
        seen, depth = _hits(corners[start : start + chunk, None], column, row)
        ids = torch.arange(start, start + len(depth), device=device)[:, None]
        if lowest_depth is not None and lowest_id is not None:
            seen &= (depth > lowest_depth) | ((depth == lowest_depth) & (ids > lowest_id))
        depth = torch.where(seen, depth, torch.inf)
        nearest = depth.amin(0)
        first = torch.where(seen & (depth == nearest), ids, len(faces)).amin(0)
        closer = nearest < best_depth  # earlier chunks have the lower ids, so they keep equal depths
        best_depth, best_id = torch.where(closer, nearest, best_depth), torch.where(closer, first, best_id)
    return best_id.reshape(height, width).int()


def _hits(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Whether faces (..., 3, 4) in screen space cover pixel centres, and at which depth; shapes broadcast."""
    w = corners[..., 3]
    x = corners[..., 0] - column[:, None] * w
    y = corners[..., 1] - row[:, None] * w
    a = edge_functions(x, y)
    positive = (a >= 0).all(-1) & (a > 0).any(-1)
    negative = (a <= 0).all(-1) & (a < 0).any(-1)
    side = positive.double() - negative.double()
    # Growth of side × a along the columns and rows: on an edge, only its left and top side count as inside.
    along_columns, along_rows = side[..., None] * edge_functions(-w.expand_as(y), y), side[..., None] * edge_functions(x, -w.expand_as(x))
    top_left = (along_columns > 0) | ((along_columns == 0) & (along_rows > 0))
    inside = (positive | negative) & ((a != 0) | top_left).all(-1)
    weight = a[..., 0] * w[..., 0] + a[..., 1] * w[..., 1] + a[..., 2] * w[..., 2]
    z = corners[..., 2]
    depth = (a[..., 0] * z[..., 0] + a[..., 1] * z[..., 1] + a[..., 2] * z[..., 2]) / weight
    in_front = side * weight > 0
    return inside & in_front & (depth >= -1) & (depth <= 1), depth
