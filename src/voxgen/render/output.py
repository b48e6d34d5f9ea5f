"""What a rendering gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Encoding = Literal["srgb", "linear"]


@dataclass(frozen=True, eq=False)
class RenderOutput:
    """v images of h × w pixels. `color` and `mask` are means over the pixel; the rest is taken at its centre.

    Args:
        color: (v, h, w, 3) over the background; in [0, 1] and sRGB-encoded, or linear light without an upper bound (`encoding`).
        mask: (v, h, w) in [0, 1], share of the pixel that is covered, times opacity.
        depth: (v, h, w) z in camera space of the nearest face, world units; infinite where there is none.
        normal: (v, h, w, 3) unit normal of the nearest face, world axes; 0 where there is none.
        face_id: (v, h, w) int32 nearest face, -1 where there is none.
        attributes: (v, h, w, c) by name, interpolated over the nearest face; 0 where there is none.
        encoding: how `color` is stored.
    """

    color: Tensor
    mask: Tensor
    depth: Tensor
    normal: Tensor
    face_id: Tensor
    attributes: Mapping[str, Tensor]
    encoding: Encoding


@dataclass(frozen=True, eq=False)
class GeometryMaps:
    """v images of h × w pixels, means over the pixel's samples. Along outlines, and where some samples see nothing, values are
    mixed with the background, which is 0 in all maps (the depth's can be chosen).

    Args:
        mask: (v, h, w) in [0, 1], share of the pixel that is covered.
        depth: (v, h, w) world units, positive in front of the camera.
        normal: (v, h, w, 3) in the axes and with the orientation asked for; of unit length where one face fills the pixel.
        face_id: (v, s h, s w) int32 nearest face of the view's mesh at each of s × s samples a pixel, -1 where there is none.
        attributes: (v, h, w, c) by name.
    """

    mask: Tensor
    depth: Tensor
    normal: Tensor
    face_id: Tensor
    attributes: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def covered(self) -> Tensor:
        """(v, h, w) bool: pixels of which at least one sample sees a face."""
        v, h, w = self.mask.shape
        s = self.face_id.shape[1] // h
        return (self.face_id >= 0).reshape(v, h, s, w, s).any(4).any(2)
