"""Which crossed edges of a cube make one dual vertex, for each pattern of signs at its corners: made by code from two rules.

1. The edges whose ends have different signs are crossed. Two crossed edges of a face belong together if they are the only ones.
   Where all four are crossed, those that meet at an inside corner of the face belong together: inside corners are kept apart.
   What belongs together, directly or by way of others, makes one dual vertex.
2. Across a face with four crossed edges, two cubes may agree that its inside corners are apart and still each have one vertex
   only, because the rest of the cube joins both sides. An edge between these two vertices would then have four quads. Such a
   cube is *problematic*: it has one such face, and would have two vertices if inside and outside were swapped. If the cube on
   the other side of the face is problematic too, both take the grouping of the opposite signs.

Corner k of a cube is the lattice point (k & 1, (k >> 1) & 1, k >> 2) away from its lowest one: x runs fastest. Bit k of a case:
corner k is inside. Face 2·axis + side looks along −axis (side 0) or +axis (side 1).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

CORNERS = tuple((k & 1, (k >> 1) & 1, k >> 2) for k in range(8))
EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4))
"""First and second corner of each of the twelve edges. Those along y start at the greater y, so that one rule winds all quads."""
FACES = tuple(tuple(k for k in range(8) if CORNERS[k][axis] == side) for axis in range(3) for side in (0, 1))
"""The four corners of each face, ascending."""
_EDGES_OF_FACE = tuple(tuple(e for e, ends in enumerate(EDGES) if set(ends) <= set(face)) for face in FACES)
_SWAPPED = 231
"""The one case whose vertices the published table has in another order than that of their smallest inside corners."""


def _edges_around(axis: int) -> tuple[tuple[tuple[int, int, int], int], ...]:
    """The four cubes around the lattice edge that a cube has at its corner 0 along an axis, as steps from that cube in
    lexicographic order, and which of their edges it is."""
    found = []
    for edge, (a, b) in enumerate(EDGES):
        low = min(CORNERS[a], CORNERS[b])
        if [x != y for x, y in zip(CORNERS[a], CORNERS[b], strict=True)].index(True) == axis:
            found.append(((-low[0], -low[1], -low[2]), edge))
    return tuple(sorted(found))


AROUND = tuple(_edges_around(axis) for axis in range(3))
"""For each axis the four cubes of a quad: steps from the last of them, which owns the quad, and their edge."""
OWN_EDGES = tuple(AROUND[axis][3][1] for axis in range(3))
"""The edges at corner 0, along x, y and z."""


class Table(NamedTuple):
    """All cases as arrays.

    counts: (256,) uint8 dual vertices.
    groups: (256, 4) int16, bit e of entry j: vertex j averages the crossing of edge e.
    member: (256, 12) int8, which vertex the crossing of an edge belongs to, -1 for an edge that is not crossed.
    direction: (256,) int8, the face across which a problematic case looks for another, -1 for all other cases.
    """

    counts: np.ndarray
    groups: np.ndarray
    member: np.ndarray
    direction: np.ndarray


def crossed(case: int, edge: int) -> bool:
    """Whether the ends of an edge have different signs."""
    first, second = EDGES[edge]
    return (case >> first ^ case >> second) & 1 == 1


@cache
def dual_vertices(case: int) -> tuple[tuple[int, ...], ...]:
    """The crossed edges that each dual vertex averages, ascending; vertices by their smallest inside corner."""
    groups = [{e} for e in range(12) if crossed(case, e)]

    def join(first: int, second: int) -> None:
        one, other = (next(g for g in groups if e in g) for e in (first, second))
        if one is not other:
            one |= other
            groups.remove(other)

    for edges, face in zip(_EDGES_OF_FACE, FACES, strict=True):
        here = [e for e in edges if crossed(case, e)]
        if len(here) == 2:
            join(*here)
        elif len(here) == 4:
            for corner in face:
                if case >> corner & 1:
                    join(*(e for e in edges if corner in EDGES[e]))
    ordered = sorted(groups, key=lambda g: min(k for e in g for k in EDGES[e] if case >> k & 1))
    if case == _SWAPPED:
        ordered.reverse()
    return tuple(tuple(sorted(g)) for g in ordered)


def ambiguous_faces(case: int) -> list[int]:
    """The faces whose four edges are all crossed."""
    return [f for f, edges in enumerate(_EDGES_OF_FACE) if all(crossed(case, e) for e in edges)]


def problematic_face(case: int) -> int:
    """The face across which a problematic case looks for another, -1 if the case is not problematic."""
    faces = ambiguous_faces(case)
    problematic = len(faces) == 1 and len(dual_vertices(255 - case)) > len(dual_vertices(case))
    return faces[0] if problematic else -1


def face_step(face: int) -> tuple[int, int, int]:
    """From a cube to the one beyond a face."""
    step = [0, 0, 0]
    step[face >> 1] = 1 if face & 1 else -1
    return step[0], step[1], step[2]


@cache
def table() -> Table:
    """Every case."""
    found = Table(np.zeros(256, np.uint8), np.zeros((256, 4), np.int16), np.full((256, 12), -1, np.int8), np.full(256, -1, np.int8))
    for case in range(256):
        vertices = dual_vertices(case)
        found.counts[case] = len(vertices)
        found.direction[case] = problematic_face(case)
        for j, edges in enumerate(vertices):
            found.groups[case, j] = sum(1 << e for e in edges)
            found.member[case, list(edges)] = j
    return found
