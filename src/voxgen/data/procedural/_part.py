"""A piece of surface in the making."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

SHARP = math.cos(math.radians(42))
"""Cosine of the angle between neighbouring pieces of an outline from which on their edge is sharp."""


@dataclass(frozen=True, eq=False)
class Part:
    """One connected piece of surface, with y up, in the units of its design.

    Args:
        vertices: (v, 3) float64.
        faces: (f, 3) int64, counter-clockwise seen from outside.
        normals: (v, 3) float64 of unit length.
        uv: (v, 2) float64, lengths along the surface in the units of the design; v grows upwards where there is such a thing.
        around: the length after which u meets itself, or 0: textures are laid on such a part a whole number of times.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    around: float = 0.0

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def scaled(self, x: float, y: float, z: float) -> Part:
        """Stretched along the axes by factors other than 0; a mirroring keeps the outside outside."""
        factors = np.array([x, y, z])
        normals = self.normals / factors
        normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        faces = self.faces[:, ::-1] if x * y * z < 0 else self.faces
        return replace(self, vertices=self.vertices * factors, normals=normals, faces=faces)

    def turned(self, axis: str, degrees: float) -> Part:
        """About the x, y or z axis, counter-clockwise for who looks against it."""
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

        def turn(rows: np.ndarray) -> np.ndarray:
            out = rows.copy()
            out[:, first] = c * rows[:, first] - s * rows[:, second]
            out[:, second] = s * rows[:, first] + c * rows[:, second]
            return out

        return replace(self, vertices=turn(self.vertices), normals=turn(self.normals))

    @property
    def mirrored(self) -> Part:
        """Left for right."""
        return self.scaled(-1.0, 1.0, 1.0)


def join(parts: list[Part]) -> Part:
    """Pieces behind each other."""
    shifts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + shift for part, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uv for part in parts]),
        max(part.around for part in parts),
    )


def lattice(rows: int, columns: int) -> np.ndarray:
    """Faces of a (rows, columns) lattice of vertices: columns lead right and rows up for who sees the front. (f, 3)."""
    i, j = (index.ravel() for index in np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij"))
    a = i * columns + j
    b, c, d = a + 1, a + columns + 1, a + columns
    return np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))


def without_slivers(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces without those that have two corners at one position, as at the poles of a body of revolution."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    same = (a == b).all(1) | (b == c).all(1) | (c == a).all(1)
    return faces[~same]


def outline_rows(points: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A line in the plane as rows of vertices, doubled where it has a sharp corner.

    Args:
        points: (n, 2); what is outside lies to the right of the line.
        closed: it leads from the last point back to the first.
    Returns:
        points (m, 2), outward normals (m, 2), length from the start (m,), and the pairs of rows (k, 2) that a piece of the line joins.
    """
    line = np.concatenate((points, points[:1])) if closed else points
    step = np.diff(line, axis=0)
    length = np.linalg.norm(step, axis=1)
    normal = np.stack((step[:, 1], -step[:, 0]), 1) / length[:, None]
    at = np.concatenate(([0.0], np.cumsum(length)))
    places: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    lengths: list[float] = []
    pairs: list[tuple[int, int]] = []
    for k in range(len(step)):
        before = normal[k - 1] if k or closed else normal[k]
        after = normal[(k + 1) % len(step)] if k + 1 < len(step) or closed else normal[k]
        smooth = k > 0 and float(before @ normal[k]) > SHARP
        if not smooth:
            first = normal[k] + before if float(before @ normal[k]) > SHARP else normal[k]
            places.append(line[k])
            normals.append(first / np.linalg.norm(first))
            lengths.append(at[k])
        last = normal[k] + after if float(after @ normal[k]) > SHARP else normal[k]
        places.append(line[k + 1])
        normals.append(last / np.linalg.norm(last))
        lengths.append(at[k + 1])
        pairs.append((len(places) - 2, len(places) - 1))
    return np.array(places), np.array(normals), np.array(lengths), np.array(pairs)
