"""From hits to an image of one view: the nearest opaque surface, and transparent layers before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .hits import Hits, View

Paint = Callable[[View, Hits], tuple[Tensor, Tensor]]
"""Linear colour (n, 3) and opacity (n, 1) of what is seen."""
_CHUNK = 1 << 18
"""Hits painted at a time, about 1 kB each."""


def draw(view: View, paint: Paint, transparent: Tensor, layers: int, backend: str) -> tuple[Tensor, Tensor]:
    """(h, w, 3) linear light, already weighted by opacity, and (h, w, 1) opacity.

    Args:
        transparent: (f,) bool, faces that may let others be seen. They are peeled from front to back, `layers` times.
    """
    solid_index, clear_index = (~transparent).nonzero()[:, 0], transparent.nonzero()[:, 0]
    solid = view.mesh.faces[solid_index]
    raster = view.rasterize(solid, None, backend)
    back, back_opacity = _paint_layer(view, paint, view.hits(raster, solid, solid_index))
    depth = raster.depth
    color, passing = torch.zeros_like(back), torch.ones_like(back_opacity)
    if len(clear_index):
        clear = view.mesh.faces[clear_index]
        previous = None
        for _ in range(layers):
            raster = view.rasterize(clear, previous, backend)
            # what lies behind the solid surface is not seen, and neither are the layers behind it
            previous = torch.where(raster.depth.detach() <= depth.detach(), raster.face_id, -1)
            if not bool((previous >= 0).any()):
                break
            light, opacity = _paint_layer(view, paint, view.hits(raster._replace(face_id=previous), clear, clear_index))
            color, passing = color + passing * light, passing * (1 - opacity)
    return color + passing * back, 1 - passing * (1 - back_opacity)


def _paint_layer(view: View, paint: Paint, hits: Hits) -> tuple[Tensor, Tensor]:
    size = (view.camera.height, view.camera.width)
    if not len(hits):
        return view.positions.new_zeros(*size, 3), view.positions.new_zeros(*size, 1)
    painted = [paint(view, part) for part in hits.chunks(_CHUNK)]
    light = torch.cat([color * opacity for color, opacity in painted])
    return hits.scatter(light, *size), hits.scatter(torch.cat([opacity for _, opacity in painted]), *size)
