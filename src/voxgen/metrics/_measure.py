"""Numbers that `mesh_report` takes from an edge table: fans, borders, area, volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from voxgen.ops.mesh_edges import EdgeTable, following
from voxgen.ops.mesh_edges._table import Array

_CHUNK = 1 << 20
"""Faces whose corners are held in float64 at a time (72 bytes each)."""


class Pieces(NamedTuple):
    """What hangs together across edges."""

    components: int
    vertices: int
    fans: int
    pinched: int
    fan: Array


def count_pieces(table: EdgeTable) -> Pieces:
    """Components, used vertices, fans around them, vertices with several fans, and the fan of each corner."""
    from ._fans import link_across_edges

    piece, fan = link_across_edges(table.half_edges, table.starts, table.counts, table.forward)
    roots = np.flatnonzero(fan == np.arange(len(fan)))
    fans_of_vertex = np.bincount(table.faces.ravel()[roots], minlength=table.vertices)
    components = int((piece == np.arange(len(piece))).sum())
    return Pieces(components, int((fans_of_vertex > 0).sum()), len(roots), int((fans_of_vertex > 1).sum()), fan)


class Borders(NamedTuple):
    """The edges with one face."""

    edges: int
    length: float
    loops: int


def measure_borders(table: EdgeTable, fan: Array, points: Array) -> Borders:
    """Number and length of the boundary edges, and how many pieces they form if pinched vertices are split."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    border = table.half_edges[table.starts[table.counts == 1]]
    if len(border) == 0:
        return Borders(0, 0.0, 0)
    start, end = table.ends(border)
    length = float(np.linalg.norm(points[end] - points[start], axis=1).sum())
    nodes, index = np.unique(np.concatenate((fan[border], fan[following(border)])), return_inverse=True)
    one, other = index[: len(border)], index[len(border) :]
    graph = coo_array((np.ones(len(border), np.int8), (one, other)), shape=(len(nodes), len(nodes)))
    return Borders(len(border), length, int(connected_components(graph, directed=False)[0]))


class Extent(NamedTuple):
    """Integrals over the proper faces."""

    flat: int
    area: float
    volume: float


def measure_extent(table: EdgeTable, points: Array, resolution: float) -> Extent:
    """Faces no higher than `resolution`, total area, and the volume integral (meaningful for closed oriented meshes only)."""
    flat, area, volume = 0, 0.0, 0.0
    middle = points.mean(0)  # the integral loses the fewest digits near the mesh
    for first in range(0, len(table.faces), _CHUNK):
        corners = points[table.faces[first : first + _CHUNK]] - middle
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        normal = np.cross(b - a, c - a)
        double_area = np.linalg.norm(normal, axis=1)
        longest = np.sqrt(np.maximum(np.maximum(_square(b - a), _square(c - b)), _square(a - c)))
        flat += int((double_area <= resolution * longest).sum())
        area += float(double_area.sum()) / 2
        volume += float(np.einsum("ij,ij->", a, normal)) / 6
    return Extent(flat, area, volume)


def _square(vectors: Array) -> Array:
    return np.einsum("ij,ij->i", vectors, vectors)
