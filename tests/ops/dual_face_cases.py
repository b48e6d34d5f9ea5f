"""Grids of a few cells, and one quad, for tests of dual faces."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid

ENGINES = ("reference", "torch", "numba")


def grid_of(cells: list[list[int]], resolution: int | tuple[int, int, int] = 4, frame: Frame | None = None) -> tuple[VoxelGrid, Tensor]:
    coords = torch.tensor([[0, *cell] for cell in cells], dtype=torch.int32)
    return VoxelGrid.build(coords, resolution=resolution, frame=frame)
