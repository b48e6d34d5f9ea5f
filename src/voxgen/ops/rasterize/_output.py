"""What a rasterisation gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RasterOutput(NamedTuple):
    """The visible triangle of every pixel.

    Args:
        face_id: (b, h, w) int32, -1 where there is nothing.
        barycentrics: (b, h, w, 3) weights of the face's three corners, 0 where there is nothing.
        depth: (b, h, w) z / w in [-1, 1], 1 where there is nothing.
    """

    face_id: Tensor
    barycentrics: Tensor
    depth: Tensor
