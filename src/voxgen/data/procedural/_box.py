"""Boxes, with sharp or round edges."""

from __future__ import annotations

import math

import numpy as np

from ._part import Part, join, lattice

_SIDES = ((2, 0, 1, 1.0), (2, 0, 1, -1.0), (0, 2, 1, 1.0), (0, 2, 1, -1.0), (1, 0, 2, 1.0), (1, 0, 2, -1.0))
"""For each side: the axis it looks along, the axes of its u and v, and to which end of the axis."""


def box(x: float, y: float, z: float, *, edge: float = 0.0, steps: int = 1) -> Part:
    """A closed box of these sides about the origin; `edge` is the radius of its edges, made of 2 × `steps` pieces.

    u and v of the upright sides lead right and up; those of a lid right and back.
    """
    size = np.array([x, y, z])
    edge = min(edge, 0.499 * float(size.min()))
    bend = [math.tan(math.pi / 4 * k / steps) for k in range(1, steps)] + [1.0]
    parts: list[Part] = []
    for axis, along, across, sign in _SIDES:
        if edge > 0:
            stations = [np.array([-edge * t for t in bend[::-1]] + [0.0]) - (size[k] / 2 - edge) for k in (along, across)]
        else:
            stations = [np.array([-size[k] / 2]) for k in (along, across)]
        u, v = (np.concatenate((s, -s[::-1])) for s in stations)
        point = np.empty((len(v), len(u), 3))
        point[..., along], point[..., across] = u[None], v[:, None]
        point[..., axis] = sign * size[axis] / 2
        normal = np.zeros_like(point)
        normal[..., axis] = sign
        if edge > 0:
            core = point.clip(-(size / 2 - edge), size / 2 - edge)
            away = point - core
            normal = away / np.sqrt(away[..., :1] ** 2 + away[..., 1:2] ** 2 + away[..., 2:] ** 2)
            point = core + edge * normal
        direction = sign * {(2, 0): 1.0, (0, 2): -1.0, (1, 0): -1.0}[axis, along]
        faces = lattice(len(v), len(u))
        uv = np.stack(np.broadcast_arrays(u[None] * direction + size[along] / 2, v[:, None] + size[across] / 2), -1)
        parts.append(Part(point.reshape(-1, 3), faces if direction > 0 else faces[:, ::-1], normal.reshape(-1, 3), uv.reshape(-1, 2)))
    return join(parts)
