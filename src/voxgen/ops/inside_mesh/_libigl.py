"""Adapter of libigl's fast winding number: a tree of clusters of triangles, those far away seen as dipoles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.voxelize._prepare import Scene


def approximate_winding(scene: Scene, grid: VoxelGrid) -> Tensor:
    """(n,) float64 winding numbers around the centres of cells, off by some thousandths."""
    if len(grid) == 0:
        return torch.zeros(0, dtype=torch.float64)
    import igl

    vertices = (scene.vertices.double() / scene.sizes()).numpy()
    centers = (grid.cells.double() + 0.5).numpy()
    found = igl.fast_winding_number(vertices, scene.faces.numpy().astype(np.int64), np.ascontiguousarray(centers))
    return torch.from_numpy(np.asarray(found))
