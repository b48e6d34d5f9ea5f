"""What a rasterisation gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._query import Window


class RasterOutput(NamedTuple):
    """The visible triangle of every pixel.

    Args:
        face_id: (b, h, w) int32, -1 where there is nothing.
        barycentrics: (b, h, w, 3) weights of the face's three corners, 0 where there is nothing.
        depth: (b, h, w) z / w in [-1, 1], 1 where there is nothing.
        window: which pixels of a larger image these are; None for all of an image of this size.
    """

    face_id: Tensor
    barycentrics: Tensor
    depth: Tensor
    window: Window | None = None

    @property
    def pixels(self) -> Window:
        """The window, or that of the whole image."""
        return Window.whole(*self.face_id.shape[1:]) if self.window is None else self.window
