"""The triangles in a cube, for each pattern of signs at its corners: made by code from three rules.

1. A face of a cube is cut by segments between its crossed edges. Where its signs alternate around the face, two ways are
   possible: either its two inside corners are joined, or they are cut off one by one. The decision is the caller's, one for
   each face, and because it depends on the face alone, both cubes beside the face cut it in the same segments.
2. The segments of all six faces close to loops. Each crossed edge belongs to one loop, which runs through it once.
3. A loop is cut into triangles by diagonals. Some loops leave no way but through a face of the cube; there the cube below the
   face may join crossings of parallel edges, and the cube above it those of edges that meet. So a diagonal belongs to one cube
   alone, and a segment to two: every edge of the surface has two triangles.

Corner k of a cube is the lattice point (k >> 2, (k >> 1) & 1, k & 1) away from its lowest one. Edge 4·axis + j is the j-th that
runs along an axis, by its lower corner. Face 2·axis + side looks along −axis (side 0) or +axis (side 1).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

CORNERS = tuple((k >> 2, (k >> 1) & 1, k & 1) for k in range(8))
EDGES = tuple((k, k | 4 >> axis) for axis in range(3) for k in range(8) if not k & 4 >> axis)
"""Lower and upper corner of each of the twelve edges."""


def _face_corners(axis: int, side: int) -> tuple[int, int, int, int]:
    """Corners of a face, counter-clockwise seen from outside of the cube; the first and third are the same seen from either side."""
    b, c = 4 >> (axis + 1) % 3, 4 >> (axis + 2) % 3
    base = (4 >> axis) * side
    return (base, base | b, base | b | c, base | c) if side else (base, base | c, base | b | c, base | b)


FACES = tuple(_face_corners(axis, side) for axis in range(3) for side in (0, 1))
_EDGE_OF = {corners: edge for edge, corners in enumerate(EDGES)}
_FACES_OF_EDGE = tuple(frozenset(f for f, corners in enumerate(FACES) if low in corners and high in corners) for low, high in EDGES)
_MIDDLES = tuple(tuple((a + b) / 2 for a, b in zip(CORNERS[low], CORNERS[high], strict=True)) for low, high in EDGES)

_IN_FACE = 100.0
"""Extra length of a diagonal in a face, so that it is a last resort."""

Triangle = tuple[int, int, int]


class Table(NamedTuple):
    """All cases as arrays.

    ambiguous: (256,) uint8, bit f is set where the signs alternate around face f.
    starts: (256 · 64 + 1,) int32: case c with the decisions d (bit f: the inside corners of face f are joined; zero for faces that
        are not ambiguous) has the triangles starts[64 c + d]:starts[64 c + d + 1].
    triangles: (t, 3) int8, crossed edges, counter-clockwise seen from outside.
    """

    ambiguous: np.ndarray
    starts: np.ndarray
    triangles: np.ndarray


def ambiguous_faces(case: int) -> int:
    """Bit f is set where the signs alternate around face f. Bit k of the case: corner k is inside."""
    mask = 0
    for f, corners in enumerate(FACES):
        first, second, third, fourth = (case >> k & 1 for k in corners)
        if first == third != second == fourth:
            mask |= 1 << f
    return mask


@cache
def cube_triangles(case: int, joined: int) -> tuple[Triangle, ...]:
    """The triangles of a cube, each as three of its crossed edges."""
    found: list[Triangle] = []
    for loop in _loops(case, joined):
        found += _cut(loop)
    return tuple(found)


@cache
def table() -> Table:
    """Every case with every decision that it leaves open."""
    ambiguous = np.array([ambiguous_faces(case) for case in range(256)], dtype=np.uint8)
    starts = np.zeros(256 * 64 + 1, dtype=np.int32)
    rows: list[Triangle] = []
    for case in range(256):
        for joined in range(64):
            if joined & ~int(ambiguous[case]) == 0:
                rows += cube_triangles(case, joined)
            starts[64 * case + joined + 1] = len(rows)
    return Table(ambiguous, starts, np.array(rows, dtype=np.int8))


def _loops(case: int, joined: int) -> list[list[int]]:
    """The closed curves in which the surface cuts the faces of the cube, as crossed edges in order."""
    following: dict[int, int] = {}
    for f, corners in enumerate(FACES):
        inside = [case >> k & 1 for k in corners]
        edges = [_EDGE_OF[min(a, b), max(a, b)] for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)]
        for i in range(4):  # walking around the face, edge i leaves the inside
            if inside[i] and not inside[(i + 1) % 4]:
                # the segment goes around the inside corner(s) behind, or around the outside corner(s) ahead
                step = 1 if joined >> f & 1 else -1
                other = (i + step) % 4
                while inside[other] == inside[(other + 1) % 4]:
                    other = (other + step) % 4
                following[edges[other]] = edges[i]
    loops: list[list[int]] = []
    left = sorted(following)
    while left:
        loop = [left[0]]
        while following[loop[-1]] != loop[0]:
            loop.append(following[loop[-1]])
        loops.append(loop)
        left = [edge for edge in left if edge not in loop]
    return loops


def _cut(loop: list[int]) -> list[Triangle]:
    """Triangulate a loop by diagonals of the least total length between the middles of the edges, inside the cube if possible."""
    n = len(loop)

    @cache
    def best(i: int, j: int) -> tuple[float, tuple[Triangle, ...]]:
        """The part of the loop from i to j, closed by the diagonal from j to i."""
        options: list[tuple[float, tuple[Triangle, ...]]] = [(0.0, ())] if j - i < 2 else []
        for k in range(i + 1, j):
            length = sum(_length(loop, a, b) for a, b in ((i, k), (k, j)))
            (first, left), (second, right) = best(i, k), best(k, j)
            options.append((length + first + second, ((loop[i], loop[k], loop[j]), *left, *right)))
        return min(options, key=lambda option: option[0])

    return list(best(0, n - 1)[1])


def _length(loop: list[int], i: int, j: int) -> float:
    """Length of a diagonal; 0 for a side of the loop, infinite in a face where the diagonal is the other cube's."""
    if j - i in (1, len(loop) - 1):
        return 0.0
    length = math.dist(_MIDDLES[loop[i]], _MIDDLES[loop[j]])
    for face in _FACES_OF_EDGE[loop[i]] & _FACES_OF_EDGE[loop[j]]:
        parallel = loop[i] // 4 == loop[j] // 4
        length += _IN_FACE if parallel == bool(face & 1) else math.inf
    return length
