"""Conservative pixel bounds of projected triangles in plain torch, and the pairs of a face and a pixel that they make."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._barycentrics import to_screen
from ._query import View, Window


class Boxes(NamedTuple):
    """The faces of a view that may cover a pixel centre, with the pixels that they may cover.

    Args:
        face: (m,) int64, ascending.
        top, left, columns: (m,) int64, upper left corner of the box in the whole image, and its width.
        ends: (m,) int64, running sum of the boxes' numbers of pixels.
    """

    face: Tensor
    top: Tensor
    left: Tensor
    columns: Tensor
    ends: Tensor

    @property
    def pairs(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0


def boxes_of(view: View, faces: Tensor, window: Window) -> Boxes:
    """See `Boxes`; faces (f, 3) int32."""
    corner = faces[view.first : view.first + view.count].long()
    x, y, z, w = to_screen(view.positions, window.height, window.width)
    clear = (w > 0) & (z >= -w)  # the others lie before the near plane, where a projection says nothing
    safe = torch.where(clear, w, 1.0)
    size = (len(corner), 3)
    px, py = ((v / safe).index_select(0, corner.flatten()).view(size) for v in (x, y))
    low_x, high_x, low_y, high_y = px.amin(1), px.amax(1), py.amin(1), py.amax(1)
    cut = (~clear.index_select(0, corner.flatten()).view(size).all(1)).nonzero()[:, 0]
    if len(cut):
        clipped = _clipped(torch.stack((x, y, z, w), 1)[corner[cut]])
        for bound, value in zip((low_x, high_x, low_y, high_y), clipped, strict=True):
            bound[cut] = value
    left, right = _centres(low_x, high_x, window.left, window.columns)
    top, bottom = _centres(low_y, high_y, window.top, window.rows)
    pixels = (right - left + 1).clamp(min=0) * (bottom - top + 1).clamp(min=0)
    kept = (pixels > 0).nonzero()[:, 0]
    return Boxes(kept + view.first, top[kept], left[kept], (right - left + 1)[kept], pixels[kept].cumsum(0))


def _centres(low: Tensor, high: Tensor, start: int, size: int) -> tuple[Tensor, Tensor]:
    """First and last index, from `start` on, whose centre, index + 0.5, may lie in [low, high]; first > last if none does."""
    margin = 1e-6 + 1e-12 * torch.maximum(low.abs(), high.abs()).nan_to_num(posinf=0.0)  # far above the rounding of the projection
    first = (low - margin - 0.5).clamp(start, start + size).ceil()
    last = (high + margin - 0.5).clamp(start - 1, start + size - 1).floor()
    return first.long(), last.long()


def _clipped(corners: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounds (low x, high x, low y, high y), in pixels, of the parts of faces (n, 3, 4) that lie behind the near plane z = -w."""
    ahead = corners.roll(-1, 1)
    distance, distance_ahead = corners[..., 2] + corners[..., 3], ahead[..., 2] + ahead[..., 3]
    crosses = (distance < 0) != (distance_ahead < 0)
    t = torch.where(crosses, distance / (distance - distance_ahead), 0.0)
    points = torch.cat((corners, corners + t[..., None] * (ahead - corners)), 1)
    there = torch.cat((distance >= 0, crosses), 1)
    w = points[..., 3]
    wild = (there & (w <= 0)).any(1)  # behind the near plane and yet behind the eye: no projection bounds that
    bounds: list[Tensor] = []
    for axis in range(2):
        place = points[..., axis] / torch.where(w > 0, w, 1.0)
        low = torch.where(there, place, torch.inf).amin(1) - 1  # a pixel more, for the rounding of the crossings
        high = torch.where(there, place, -torch.inf).amax(1) + 1
        bounds += [torch.where(wild, -torch.inf, low), torch.where(wild, torch.inf, high)]
    return bounds[0], bounds[1], bounds[2], bounds[3]
