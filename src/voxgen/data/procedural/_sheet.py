"""Open surfaces."""

from __future__ import annotations

import numpy as np

from ._part import Part, lattice, without_slivers


def sheet(points: np.ndarray) -> Part:
    """A surface through a lattice of points (rows, columns, 3): columns lead right and rows up for who sees its front."""
    rows, columns = points.shape[:2]
    right, up = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normal = np.cross(right, up)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    mean = normal.sum((0, 1))
    normal = np.where(length > 1e-12, normal / length.clip(min=1e-12), mean / np.linalg.norm(mean))  # where the lattice meets in a point
    across = np.linalg.norm(np.diff(points, axis=1), axis=-1).mean(0)
    along = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(1)
    u, v = (np.concatenate(([0.0], np.cumsum(step))) for step in (across, along))
    uv = np.stack(np.broadcast_arrays(u[None], v[:, None]), -1)
    flat = points.reshape(-1, 3)
    return Part(flat, without_slivers(flat, lattice(rows, columns)), normal.reshape(-1, 3), uv.reshape(-1, 2))
