"""Flat outlines drawn out in depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._part import Part, join, lattice, outline_rows


def extrude(
    outline: Sequence[tuple[float, float]] | np.ndarray,
    depth: float,
    *,
    hole: np.ndarray | None = None,
    middle: tuple[float, float] | None = None,
) -> Part:
    """A prism over an outline (n, 2) in x and y, counter-clockwise, of this depth along z about the origin; closed.

    The outline must be seen whole from `middle`, or else from the mean of its points. A hole is (n, 2), counter-clockwise too; its
    points pair up with those of the outline.
    """
    points = np.asarray(outline, dtype=np.float64)
    centre = points.mean(0) if middle is None else np.array(middle)
    parts = [_wall(points, depth), *([] if hole is None else [_wall(hole[::-1], depth)])]
    for side in (1.0, -1.0):
        inner = centre[None] if hole is None else hole
        parts.append(_lid(points, inner, side * depth / 2, side))
    return join(parts)


def extrude_band(lower: np.ndarray, upper: np.ndarray, depth: float) -> Part:
    """A prism between two lines (n, 2) in x and y that both lead right, of this depth along z about the origin; closed."""
    wall = _wall(np.concatenate((lower, upper[::-1])), depth)
    n = len(lower)
    faces = lattice(2, n)
    flat = np.concatenate((lower, upper))
    lids: list[Part] = []
    for side in (1.0, -1.0):
        vertices = np.concatenate((flat, np.full((2 * n, 1), side * depth / 2)), 1)
        lids.append(Part(vertices, faces if side > 0 else faces[:, ::-1], np.tile([0.0, 0.0, side], (2 * n, 1)), flat.copy()))
    return join([wall, *lids])


def regular(corners: int, radius: float, *, turn: float = 0.0) -> np.ndarray:
    """The corners of a regular polygon, (n, 2)."""
    angle = turn + np.arange(corners) * (2 * math.pi / corners)
    return radius * np.stack((np.cos(angle), np.sin(angle)), 1)


def _wall(points: np.ndarray, depth: float) -> Part:
    rows, normals, length, pairs = outline_rows(points, True)
    n = len(rows)
    vertices = np.concatenate([np.concatenate((rows, np.full((n, 1), z)), 1) for z in (-depth / 2, depth / 2)])
    out = np.tile(np.concatenate((normals, np.zeros((n, 1))), 1), (2, 1))
    uv = np.concatenate([np.stack((length, np.full(n, z)), 1) for z in (0.0, depth)])
    a, b = pairs.T
    faces = np.concatenate((np.stack((a, b, b + n), 1), np.stack((a, b + n, a + n), 1)))
    return Part(vertices, faces, out, uv)


def _lid(points: np.ndarray, inner: np.ndarray, z: float, side: float) -> Part:
    n, m = len(points), len(inner)
    flat = np.concatenate((points, inner))
    i = np.arange(n)
    j = (i + 1) % n
    faces = np.stack((i, j, n + i % m), 1)
    if m > 1:
        faces = np.concatenate((faces, np.stack((j, n + j, n + i), 1)))
    vertices = np.concatenate((flat, np.full((len(flat), 1), z)), 1)
    normals = np.tile([0.0, 0.0, side], (len(flat), 1))
    return Part(vertices, faces if side > 0 else faces[:, ::-1], normals, flat.copy())
