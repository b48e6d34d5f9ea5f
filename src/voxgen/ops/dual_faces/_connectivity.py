"""What the engines find: quads, how they are cut, and which cells keep their vertex. Integers only."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Rule = Literal["weight", "angle", "first", "trellis2", "middle"]
"""How quads become triangles; "middle" is the training variant."""

MAX_INDEX = (1 << 31) - 1

CORNERS = (
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
)
"""Cells around the x, y and z edge of a cell, as offsets from it. In this order every quad's normal points towards -."""


class Quads(NamedTuple):
    """Quads in the order of (sample, cell, axis), the owner of the edge first.

    rows: (q, 4) int32 rows of the grid, wound; axis: (q,) uint8; offsets: (b + 1,) int64 bounds of the samples;
    dropped: (b,) int64 crossed edges that lack a cell.
    """

    rows: Tensor
    axis: Tensor
    offsets: Tensor
    dropped: Tensor


class Connectivity(NamedTuple):
    """quads, and what was made of them.

    faces: (f, 3) int32 indices of vertices; kept: (u,) int32 ascending rows of the cells whose vertex stays, None if all;
    middle: whether each quad has a vertex of its own. The vertices of a sample are those of its cells, then those of its quads.
    """

    quads: Quads
    faces: Tensor
    kept: Tensor | None
    middle: bool
