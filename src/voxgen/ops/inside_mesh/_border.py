"""The border of a surface: edges at which the windings of its faces do not cancel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from voxgen.core import TriMesh
from voxgen.ops.mesh_edges import edge_table
from voxgen.ops.voxelize._prepare import Scene


class Border(NamedTuple):
    """start, end: (e, 3) float64 in cells.   excess: (e,) float64, how many more faces run from start to end than back; at least 1."""

    start: np.ndarray
    end: np.ndarray
    excess: np.ndarray


def border(scene: Scene) -> Border:
    """Vertices at one position count as one; so a seam is no border, nor is an edge at which several sheets cancel."""
    table = edge_table(TriMesh(scene.vertices, scene.faces), weld=True)
    net = 2 * table.forward_counts() - table.counts
    open_ones = np.flatnonzero(net)
    ends = table.ends(table.half_edges[table.starts[open_ones]])
    low, high = np.minimum(*ends), np.maximum(*ends)
    forward = net[open_ones] > 0
    points = scene.vertices.double().numpy() / np.array(scene.voxel_size)
    return Border(points[np.where(forward, low, high)], points[np.where(forward, high, low)], np.abs(net[open_ones]).astype(np.float64))
