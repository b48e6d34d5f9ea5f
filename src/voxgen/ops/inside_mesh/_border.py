"""The border of a surface: edges at which the windings of its faces do not cancel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from voxgen.core import TriMesh
from voxgen.ops.voxelize._prepare import Scene


class Border(NamedTuple):
    """start, end: (e, 3) float64 in cells.   excess: (e,) float64, how many more faces run from start to end than back; at least 1."""

    start: np.ndarray
    end: np.ndarray
    excess: np.ndarray


def border(scene: Scene) -> Border:
    """Vertices at one position count as one; so a seam is no border, nor is an edge at which several sheets cancel."""
    welded = TriMesh(scene.vertices, scene.faces).weld()[scene.faces.long()].numpy()
    tail, head = welded.ravel(), np.roll(welded, -1, axis=1).ravel()
    key = np.minimum(tail, head) * len(scene.vertices) + np.maximum(tail, head)
    edges, place = np.unique(key, return_inverse=True)
    net = np.bincount(place, np.sign(head - tail), len(edges))
    open_ones = np.flatnonzero(net)
    low, high = np.divmod(edges[open_ones], len(scene.vertices))
    forward = net[open_ones] > 0
    points = scene.vertices.double().numpy() / np.array(scene.voxel_size)
    return Border(points[np.where(forward, low, high)], points[np.where(forward, high, low)], np.abs(net[open_ones]))
