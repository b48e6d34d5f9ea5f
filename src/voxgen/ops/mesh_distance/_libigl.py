"""Adapter of libigl: its tree of boxes, and its fast winding number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._tree import SurfaceTree


def nearest_face(points: Tensor, vertices: Tensor, faces: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """See `_reference.nearest_face`."""
    queries, corners, triangles = (np.ascontiguousarray(t.numpy()) for t in (points, vertices, faces))
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    face = torch.from_numpy(SurfaceTree(corners, triangles).nearest(queries).elements.astype(np.int64))
    if not signed:
        return face, torch.zeros(len(points), dtype=torch.bool)
    import igl

    return face, torch.from_numpy(igl.fast_winding_number(corners, triangles, queries)) > 0.5
