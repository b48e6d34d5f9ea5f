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
