"""From the visible triangle of each pixel to the place in it: plain torch, differentiable in the positions.

A triangle's corners P_k = (x, y, z, w) are moved so that the pixel's centre is the origin of the screen:
X_k = x_k - w_k column, Y_k = y_k - w_k row, in pixels. A point Σ b_k P_k of the triangle lies under the centre if
Σ b_k X_k = Σ b_k Y_k = 0, so b is proportional to the cross product of X and Y. No division by w is needed, and the formula
holds for corners behind the eye.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._output import RasterOutput
from ._query import Window

_CHUNK = 1 << 20  # pixels at a time, about 300 bytes each


def to_screen(positions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clip space (..., 4) → float64 x, y, z, w, with x and y in pixels times w. Exact for float32 positions of ordinary size."""
    x, y, z, w = positions.double().unbind(-1)
    return (x + w) * (width / 2), (y + w) * (height / 2), z, w


def edge_functions(x: Tensor, y: Tensor) -> Tensor:
    """(..., 3) corners relative to the pixel's centre → (..., 3) unnormalised barycentrics.

    Entry k belongs to the edge between the other two corners; swapping these two changes exactly its sign.
    """
    x0, x1, x2 = x.unbind(-1)
    y0, y1, y2 = y.unbind(-1)
    return torch.stack((x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1), -1)


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """rows[index] for an (n, 3) index, with a backward pass that adds in a fixed order on CPU (that of `rows[index]` does not)."""
    return rows.index_select(0, index.flatten()).reshape(*index.shape, rows.shape[-1])


def _at_centres(corners: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clip-space corners (n, 3, 4) of the faces at n pixels → x, y, z, w, each (n, 3), x and y relative to the pixels' centres."""
    x, y, z, w = to_screen(corners, height, width)
    return x - (column.double()[:, None] + 0.5) * w, y - (row.double()[:, None] + 0.5) * w, z, w


def _corners(positions: Tensor, faces: Tensor, face_id: Tensor, pixels: Tensor) -> Tensor:
    """Clip-space corners (n, 3, 4) of the faces at pixels (n, 3) of view, row and column; positions of one or of every view."""
    view, row, column = pixels.unbind(1)
    corner = faces[face_id[view, row, column].long()].long()
    if len(positions) > 1:
        corner = corner + (view * positions.shape[1])[:, None]
    return take_rows(positions.reshape(-1, 4), corner)


def locate(positions: Tensor, faces: Tensor, face_id: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Positions (b or 1, v, 4) and face ids (b, h, w) → barycentrics (b, h, w, 3) and depth (b, h, w) in the dtype of positions."""
    covered = (face_id >= 0).nonzero()
    barycentrics, depths = [], []
    for pixels in covered.split(_CHUNK):
        place = (pixels[:, 1] + window.top, pixels[:, 2] + window.left)
        x, y, z, w = _at_centres(_corners(positions, faces, face_id, pixels), *place, window.height, window.width)
        a = edge_functions(x, y)
        depths.append(((a * z).sum(-1) / (a * w).sum(-1)).to(positions.dtype))
        barycentrics.append((a / a.sum(-1, keepdim=True)).to(positions.dtype))
    place = covered.unbind(1)
    full_barycentrics = positions.new_zeros(*face_id.shape, 3).index_put(place, torch.cat(barycentrics))
    full_depth = positions.new_ones(face_id.shape).index_put(place, torch.cat(depths))
    return full_barycentrics, full_depth


def screen_derivatives(positions: Tensor, faces: Tensor, raster: RasterOutput) -> Tensor:
    """How the barycentrics change from pixel to pixel; times the corners' uv, this gives the footprint of a pixel in a texture.

    Args:
        positions, faces: as given to `rasterize`.
        raster: its result.
    Returns:
        (b, h, w, 3, 2) d barycentrics / d (column, row), 0 where there is nothing. Differentiable in positions.
    """
    batch = positions if positions.ndim == 3 else positions[None]
    pixels = (raster.face_id >= 0).nonzero()
    corners, window = _corners(batch, faces, raster.face_id, pixels), raster.pixels
    derivative = screen_derivatives_at(corners, pixels[:, 1] + window.top, pixels[:, 2] + window.left, window.height, window.width)
    return batch.new_zeros(*raster.face_id.shape, 3, 2).index_put(pixels.unbind(1), derivative)


def screen_derivatives_at(corners: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """`screen_derivatives` for a list of pixels.

    Args:
        corners: (n, 3, 4) clip-space corners of the face that each pixel sees.
        row, column: (n,) the pixels.
        height, width: size of the image.
    Returns:
        (n, 3, 2) d barycentrics / d (column, row). Differentiable in corners.
    """
    x, y, _, w = _at_centres(corners, row, column, height, width)
    a = edge_functions(x, y)
    # d a / d column: a is bilinear in (X, Y) and dX / d column = -w; the same for the rows
    slope = torch.stack((edge_functions(-w, y), edge_functions(x, -w)), -1)
    total, total_slope = a.sum(-1)[:, None, None], slope.sum(-2, keepdim=True)
    return ((slope - a[..., None] / total * total_slope) / total).to(corners.dtype)
