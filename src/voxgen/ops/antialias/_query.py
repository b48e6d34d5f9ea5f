"""What an engine of antialiasing is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from voxgen.ops.rasterize import Window

EDGE_ON = 1e-12
"""A neighbour that is this flat on the screen, relative to the terms of its area, is seen edge-on: it hides nothing of the outline."""
LOWEST, HIGHEST = -1 / 16, 17 / 16
"""Where between two centres, at 0 and 1, an outline may cross; a little beyond, because coverage and crossing round differently."""


@dataclass(frozen=True, eq=False)
class Query:
    """Which pairs of neighbouring pixels does an outline of the nearer one's triangle pass between?

    Args:
        positions: (b or 1, v, 4) clip space, without a gradient.
        faces: (f, 3) int32.
        opposite: (f, 3) int32 of `opposite_vertices`, or None: find what is needed.
        face_id, depth: (b, rows, columns) of the raster.
        window: its pixels.

    The answer is (n, 5) int64, one row a pair: the first pixel (flat index into b, rows, columns), 0 if the second lies right of it and
    1 if below, 0 if the nearer triangle is the first pixel's and 1 if it is the second's, and the two vertices of the edge. Rows are
    ordered by direction, then pixel.
    """

    positions: Tensor
    faces: Tensor
    opposite: Tensor | None
    face_id: Tensor
    depth: Tensor
    window: Window
