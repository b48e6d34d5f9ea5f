"""Tubes along curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._part import Part, join, lattice


def tube(
    path: Sequence[Sequence[float] | np.ndarray] | np.ndarray, radius: float | Sequence[float] | np.ndarray, *, around: int = 12
) -> Part:
    """A closed tube along points (n, 3), of one radius or one a point, with flat lids."""
    points = np.asarray(path, dtype=np.float64)
    n = len(points)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (n,))
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent[0], np.eye(3)[np.abs(tangent[0]).argmin()])
    frames = []
    for t in tangent:  # the frame is carried along with as little turning as can be
        side = side - t * (side * t).sum()
        side = side / np.linalg.norm(side)
        frames.append((side, np.cross(t, side)))
    frame = np.array(frames)
    angle = np.arange(around) * (2 * math.pi / around)
    ring = np.stack((np.cos(angle), np.sin(angle)), 1)
    ring = np.concatenate((ring, ring[:1]))
    normal = ring[None, :, :1] * frame[:, None, 0] + ring[None, :, 1:] * frame[:, None, 1]
    vertices = points[:, None] + radii[:, None, None] * normal
    length = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    girth = 2 * math.pi * float(radii.max())
    uv = np.stack(np.broadcast_arrays(np.linspace(0, girth, around + 1)[None], length[:, None]), -1)
    wall = Part(vertices.reshape(-1, 3), lattice(n, around + 1), normal.reshape(-1, 3), uv.reshape(-1, 2), girth)
    lids = [_lid(points[k], vertices[k, :-1], sign * tangent[k], sign) for k, sign in ((0, -1.0), (-1, 1.0))]
    return join([wall, *lids])


def _lid(middle: np.ndarray, rim: np.ndarray, normal: np.ndarray, sign: float) -> Part:
    n = len(rim)
    i = np.arange(n)
    faces = np.stack((i, (i + 1) % n, np.full(n, n)), 1)
    uv = np.zeros((n + 1, 2))
    return Part(np.concatenate((rim, middle[None])), faces if sign > 0 else faces[:, ::-1], np.tile(normal, (n + 1, 1)), uv)


def arc(radius: float, start: float, end: float, pieces: int = 12) -> np.ndarray:
    """Points (n, 3) of an arc in the plane of x and y about the origin, from one angle in degrees to another; 0 lies on +x."""
    angle = np.radians(np.linspace(start, end, pieces + 1))
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), np.zeros(pieces + 1)), 1)


def bent(points: Sequence[Sequence[float]], pieces: int = 12) -> np.ndarray:
    """A Bézier curve (n, 3) with these control points."""
    p = np.asarray(points, dtype=np.float64)
    t = np.linspace(0, 1, pieces + 1)[:, None, None]
    rows = np.broadcast_to(p, (pieces + 1, *p.shape))
    while rows.shape[1] > 1:
        rows = rows[:, :-1] * (1 - t) + rows[:, 1:] * t
    return rows[:, 0]
