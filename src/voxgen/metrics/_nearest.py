"""Nearest points: on a surface by a tree of boxes (libigl), among points by a k-d tree (SciPy). float64, all threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 16
"""Queries between two steps of the progress bar."""


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


class PointTree:
    """A set of points (n, 3)."""

    def __init__(self, points: Array) -> None:
        from scipy.spatial import KDTree

        self._tree = KDTree(points)

    def nearest(self, queries: Array) -> Nearest:
        distances, elements = self._tree.query(queries, workers=-1)
        return Nearest(np.asarray(distances), np.asarray(elements))


def nearest(tree: SurfaceTree | PointTree, queries: Array, bar: tqdm[Any]) -> Nearest:
    """All queries, piece by piece, moving the bar by their number."""
    parts: list[Nearest] = []
    for first in range(0, len(queries), _CHUNK):
        parts.append(tree.nearest(np.ascontiguousarray(queries[first : first + _CHUNK])))
        bar.update(len(parts[-1].distances))
    return Nearest(np.concatenate([p.distances for p in parts]), np.concatenate([p.elements for p in parts]))
