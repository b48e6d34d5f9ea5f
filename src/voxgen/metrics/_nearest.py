"""Nearest points: on a surface by a tree of boxes (libigl), among points by a k-d tree (SciPy). float64, all threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from voxgen.ops.mesh_distance._tree import Nearest, SurfaceTree

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 16
"""Queries between two steps of the progress bar."""


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
