"""The exact test of pixels against faces in plain torch. All engines but external ones give its answer, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from ._barycentrics import edge_functions, to_screen
from ._query import Window

_CHUNK = 1 << 20  # pixels at a time, about 300 bytes each


def covers(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Whether faces cover pixel centres, and at which depth; shapes broadcast.

    Args:
        corners: (..., 3, 4) in screen space (`to_screen`), in order of the vertices' index: faces of the same three vertices then have
            exactly the same depth.
        column, row: (...) centres in pixels.
    """
    x, y, a = _relative(corners, column, row)
    w = corners[..., 3]
    positive = (a >= 0).all(-1) & (a > 0).any(-1)
    negative = (a <= 0).all(-1) & (a < 0).any(-1)
    side = positive.double() - negative.double()
    # Growth of side × a along the columns and rows: on an edge, only its left and top side count as inside.
    along_columns, along_rows = side[..., None] * edge_functions(-w.expand_as(y), y), side[..., None] * edge_functions(x, -w.expand_as(x))
    top_left = (along_columns > 0) | ((along_columns == 0) & (along_rows > 0))
    inside = (positive | negative) & ((a != 0) | top_left).all(-1)
    weight, depth = _depth(a, corners)
    in_front = side * weight > 0
    return inside & in_front & (depth >= -1) & (depth <= 1), depth


def _relative(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w = corners[..., 3]
    x = corners[..., 0] - column[..., None] * w
    y = corners[..., 1] - row[..., None] * w
    return x, y, edge_functions(x, y)


def _depth(a: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    z, w = corners[..., 2], corners[..., 3]
    weight = a[..., 0] * w[..., 0] + a[..., 1] * w[..., 1] + a[..., 2] * w[..., 2]
    return weight, (a[..., 0] * z[..., 0] + a[..., 1] * z[..., 1] + a[..., 2] * z[..., 2]) / weight


def depth_of_faces(positions: Tensor, faces: Tensor, face_id: Tensor, window: Window) -> Tensor:
    """(b, rows, columns) float64 depth of the face that each pixel names, as `covers` computes it; infinite where there is none.

    Args:
        positions: (b or 1, v, 4).   faces: (f, 3).   face_id: (b, rows, columns).
    """
    depth = torch.full(face_id.shape, torch.inf, dtype=torch.float64, device=face_id.device)
    flat, ids = depth.view(-1), face_id.reshape(-1)
    for pixel in (ids >= 0).nonzero()[:, 0].split(_CHUNK):
        corner = faces.index_select(0, ids[pixel]).long().sort(dim=1).values
        if len(positions) > 1:
            corner = corner + (pixel // window.pixels * positions.shape[1])[:, None]
        corners = positions.reshape(-1, 4).index_select(0, corner.flatten()).reshape(-1, 3, 4)
        column = (pixel % window.columns + window.left).double() + 0.5
        row = (pixel // window.columns % window.rows + window.top).double() + 0.5
        screen = torch.stack(to_screen(corners, window.height, window.width), -1)
        flat[pixel] = _depth(_relative(screen, column, row)[2], screen)[1].nan_to_num(nan=torch.inf)
    return depth
