"""What every representation takes over from the grid that it lives on."""

from __future__ import annotations

import torch

from voxgen.core import Frame, VoxelGrid
from voxgen.core.aliases import Coords, Int3


class OnGrid:
    """Base of records with a field `grid` and one row of everything else for each of its cells."""

    grid: VoxelGrid

    @property
    def coords(self) -> Coords:
        """(n, 4) int32 [batch, x, y, z]."""
        return self.grid.coords

    @property
    def resolution(self) -> Int3:
        return self.grid.resolution

    @property
    def frame(self) -> Frame:
        return self.grid.frame

    @property
    def batch_size(self) -> int:
        return self.grid.batch_size

    @property
    def device(self) -> torch.device:
        return self.grid.device

    def __len__(self) -> int:
        return len(self.grid)
