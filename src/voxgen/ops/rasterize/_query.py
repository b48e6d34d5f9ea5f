"""What an engine of the visible-triangle query is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """A rectangle of pixels of a larger image.

    Args:
        height, width: size of the whole image.
        top, left: first row and column of the window.
        rows, columns: size of the window.
    """

    height: int
    width: int
    top: int
    left: int
    rows: int
    columns: int

    @staticmethod
    def whole(height: int, width: int) -> Window:
        return Window(height, width, 0, 0, height, width)

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, eq=False)
class View:
    """One image of a query.

    Args:
        positions: (v, 4) clip space.
        first, count: which of the faces are drawn.
        lowest_depth, lowest_id: (rows, columns) float64 and int32, see `Query`; None for no limit.
    """

    positions: Tensor
    first: int
    count: int
    lowest_depth: Tensor | None
    lowest_id: Tensor | None


@dataclass(frozen=True, eq=False)
class Query:
    """b images: which face is nearest at each pixel's centre?

    Args:
        positions: (b, v, 4) or, the same for all, (1, v, 4), clip space, without a gradient.
        faces: (f, 3) int32.
        parts: b pairs: the first face that a view draws, and how many.
        window: which pixels.
        lowest_depth, lowest_id: (b, rows, columns) float64 and int32: only faces behind this depth count, at this depth those of
            a higher index. None for no limit.
    """

    positions: Tensor
    faces: Tensor
    parts: tuple[tuple[int, int], ...]
    window: Window
    lowest_depth: Tensor | None = None
    lowest_id: Tensor | None = None

    def views(self) -> Iterator[View]:
        for i, (first, count) in enumerate(self.parts):
            positions = self.positions[i if len(self.positions) > 1 else 0]
            depth = None if self.lowest_depth is None else self.lowest_depth[i]
            yield View(positions, first, count, depth, None if self.lowest_id is None else self.lowest_id[i])
