"""Bodies of revolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._part import Part, outline_rows, without_slivers


def lathe(profile: Sequence[tuple[float, float]] | np.ndarray, *, around: int = 32, closed: bool = False) -> Part:
    """A profile of (radius, height) turned about the y axis; its outside lies to the right of the line, as when it leads upwards.

    A profile that begins and ends at radius 0 gives a closed body, `closed` one that is a ring; others are open. Few and even
    `around` gives prisms, with smooth normals.
    """
    points = np.array(profile, dtype=np.float64)
    points[points[:, 0] < 1e-9, 0] = 0.0  # a pole is one point
    rows, normals, length, pairs = outline_rows(points, closed)
    angle = math.pi + np.arange(around) * (2 * math.pi / around)  # the seam is behind
    ring = np.stack((np.sin(angle), np.cos(angle)), 1)
    ring = np.concatenate((ring, ring[:1]))
    vertices = np.empty((len(rows), around + 1, 3))
    vertices[..., (0, 2)] = rows[:, None, :1] * ring
    vertices[..., 1] = rows[:, 1:]
    out = np.empty_like(vertices)
    out[..., (0, 2)] = normals[:, None, :1] * ring
    out[..., 1] = normals[:, 1:]
    girth = 2 * math.pi * float(rows[:, 0].max())
    uv = np.stack(np.broadcast_arrays(np.linspace(0, girth, around + 1)[None], length[:, None]), -1)
    column = np.arange(around)
    low, high = (pairs[:, k, None] * (around + 1) + column for k in range(2))
    faces = np.concatenate((np.stack((low, low + 1, high + 1), -1).reshape(-1, 3), np.stack((low, high + 1, high), -1).reshape(-1, 3)))
    flat = vertices.reshape(-1, 3)
    return Part(flat, without_slivers(flat, faces), out.reshape(-1, 3), uv.reshape(-1, 2), girth)


def cylinder(radius: float, height: float, *, top: float | None = None, around: int = 24) -> Part:
    """Closed, standing on y = 0; `top` is the radius at the upper end."""
    end = radius if top is None else top
    profile = [(0.0, 0.0), (radius, 0.0), (end, height), (0.0, height)]
    return lathe(profile[: 3 if end == 0 else 4], around=around)


def ellipsoid(x: float, y: float, z: float, *, around: int = 24, rows: int = 12) -> Part:
    """Closed, about the origin, by its half axes."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, rows + 1)
    radius = np.cos(angle)
    radius[[0, -1]] = 0.0
    ball = lathe(np.stack((radius, np.sin(angle)), 1), around=around)
    size = (x + y + z) / 3
    return Part(ball.vertices, ball.faces, ball.normals, ball.uv * size, ball.around * size).scaled(x, y, z)


def ball(radius: float, *, around: int = 16) -> Part:
    """A closed sphere about the origin."""
    return ellipsoid(radius, radius, radius, around=around, rows=around // 2 + 2)


def ring(radius: float, thickness: float, *, around: int = 32, across: int = 12) -> Part:
    """A torus about the y axis, closed."""
    angle = np.arange(across) * (2 * math.pi / across)
    return lathe(np.stack((radius + thickness * np.cos(angle), thickness * np.sin(angle)), 1), around=around, closed=True)


def smooth(points: Sequence[tuple[float, float]] | np.ndarray, pieces: int = 6) -> np.ndarray:
    """A soft line through points of a profile (Catmull-Rom), with radii that do not become negative."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate((2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]))
    t = np.arange(pieces)[:, None] / pieces
    a, b, c, d = (p[k : len(p) - 3 + k, None] for k in range(4))
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    out = np.concatenate((line.reshape(-1, 2), p[-2:-1]))
    out[:, 0] = out[:, 0].clip(min=0)
    return out


def walled(outside: np.ndarray, wall: float) -> np.ndarray:
    """The profile of a vessel with this outside, which leads up from the axis to the rim: on it goes round the rim and down inside."""
    step = np.gradient(outside, axis=0)
    step = step / np.linalg.norm(step, axis=1, keepdims=True)
    inside = outside - wall * np.stack((step[:, 1], -step[:, 0]), 1)
    inside[:, 0] = inside[:, 0].clip(min=0)
    inside[:, 1] = inside[:, 1].clip(min=outside[0, 1] + wall)
    inside[-1] = outside[-1] + (-wall, 0.0)
    inside[0] = (0.0, inside[0, 1])
    keep = [True, *(bool(np.abs(inside[k] - inside[k - 1]).sum() > 1e-4) and inside[k, 0] > 1e-4 for k in range(1, len(inside)))]
    return np.concatenate((outside, inside[keep][::-1]))
