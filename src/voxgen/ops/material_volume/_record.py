"""What the op gives: cells with material values."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from voxgen.core.aliases import Cells

CHANNELS = {"base_color": 3, "metallic": 1, "roughness": 1, "emissive": 3, "alpha": 1, "normal": 3}
"""Every channel and its width, in the order in which results hold them."""


class MaterialVolume(NamedTuple):
    """Materials of the cells that a mesh touches.

    cells: (n, 3) int32, unique, in lexicographic order: those of the dual grid of the same mesh.
    values: by channel, (n, c) float32; in [0, 1], normals in [-1, 1].
    """

    cells: Cells
    values: dict[str, Tensor]


def columns(channels: tuple[str, ...]) -> dict[str, slice]:
    """Where each channel lies when all are put side by side."""
    places, at = {}, 0
    for name in channels:
        places[name] = slice(at, at + CHANNELS[name])
        at += CHANNELS[name]
    return places
