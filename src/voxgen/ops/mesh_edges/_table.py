"""The edges of a triangle mesh: which faces run along each, in which direction, and what hangs together across them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxgen.core import TriMesh

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """Half-edges of the proper faces, grouped by the undirected edge that they run along.

    A face is proper if it has three different vertices. Half-edge h = 3 * face + corner runs from that corner to the next
    one of its face, where `face` counts the proper faces.

    Attributes:
        faces: (f, 3) int64, the proper faces (welded, if asked for).
        rows: (f,) int64, which row of the mesh's faces each is.
        vertices: one more than the largest vertex index that may occur.
        half_edges: (3 f,) int64, edge after edge; in no particular order inside one edge.
        starts: (e,) int64, where the half-edges of each edge begin.
        counts: (e,) int64, how many faces each edge has.
        forward: (3 f,) bool, aligned with `half_edges`: the half-edge runs from the lower to the higher vertex.
    """

    faces: Array
    rows: Array
    vertices: int
    half_edges: Array
    starts: Array
    counts: Array
    forward: Array

    def __len__(self) -> int:
        return len(self.starts)

    def ends(self, half_edges: Array) -> tuple[Array, Array]:
        """First and last vertex of some half-edges."""
        return self.faces.ravel()[half_edges], self.faces.ravel()[following(half_edges)]

    def forward_counts(self) -> Array:
        """(e,) how many of an edge's faces run along it from the lower to the higher vertex."""
        if len(self) == 0:
            return np.zeros(0, np.int64)
        return np.add.reduceat(self.forward, self.starts, dtype=np.int64)

    def duplicate_faces(self) -> int:
        """Proper faces that have the three vertices of an earlier one, in any order."""
        edge_of = np.empty(len(self.half_edges), np.int64)
        edge_of[self.half_edges] = np.repeat(np.arange(len(self)), self.counts)
        one, two, three = edge_of.reshape(-1, 3).T
        lowest, highest = np.minimum(np.minimum(one, two), three), np.maximum(np.maximum(one, two), three)
        key = np.sort(lowest * len(self) + highest)  # two edges determine the triangle
        return int((key[1:] == key[:-1]).sum())


def following(half_edges: Array) -> Array:
    """The half-edge that starts where each of these ends, in the same face."""
    return half_edges + 1 - 3 * (half_edges % 3 == 2)


def edge_table(mesh: TriMesh, weld: bool) -> EdgeTable:
    """Group half-edges by sorting packed int64 keys: lower vertex times vertex count plus higher vertex."""
    source = mesh.faces.long()
    if weld:
        source = mesh.weld()[source]
    faces: Array = source.cpu().numpy()
    following_corner = faces[:, [1, 2, 0]]
    proper = (faces != following_corner).all(1)
    rows = np.flatnonzero(proper)
    if len(rows) < len(faces):
        faces, following_corner = faces[rows], following_corner[rows]
    faces = np.ascontiguousarray(faces)
    low = np.minimum(faces, following_corner).ravel()
    key = low * mesh.num_vertices + np.maximum(faces, following_corner).ravel()
    half_edges = np.argsort(key)  # not stable, twice as fast: nothing below depends on the order inside an edge
    key = key[half_edges]
    starts = np.flatnonzero(np.concatenate((np.ones(min(len(key), 1), bool), key[1:] != key[:-1])))
    counts = np.diff(starts, append=len(key))
    forward = (faces.ravel() == low)[half_edges]
    return EdgeTable(faces, rows, mesh.num_vertices, half_edges, starts, counts, forward)
