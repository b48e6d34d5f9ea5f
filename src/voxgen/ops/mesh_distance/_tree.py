"""Nearest points on a surface by libigl's tree of boxes. float64, all threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Nearest(NamedTuple):
    """For each query: distance to the nearest point, and the row of the element it lies on."""

    distances: Array
    elements: Array


class SurfaceTree:
    """A set of triangles (f, 3), segments (f, 2) or points (f, 1) over vertices; degenerate ones are what they shrink to."""

    def __init__(self, vertices: Array, elements: Array) -> None:
        import igl

        self._vertices = np.ascontiguousarray(vertices, np.float64)
        self._elements = np.ascontiguousarray(elements, np.int64)
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._elements)

    def nearest(self, queries: Array) -> Nearest:
        squared, elements, _ = self._tree.squared_distance(self._vertices, self._elements, queries)
        return Nearest(np.sqrt(squared), np.asarray(elements))
