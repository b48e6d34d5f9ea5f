"""Small grids for tests: random cells, cells near a surface, full cubes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Int3


def random_coords(counts: Sequence[int], resolution: int | Int3 = 16, seed: int = 0) -> Tensor:
    """(n, 4) int32 unique cells in random order, counts[s] of them in sample s, mostly in one corner so that many are neighbours."""
    size = (resolution,) * 3 if isinstance(resolution, int) else resolution
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sample, count in enumerate(counts):
        cells = torch.zeros(0, 3, dtype=torch.int64)
        span = torch.tensor([min(s, max(2, round((2 * count) ** (1 / 3)))) for s in size])
        while len(cells) < count:
            spread = torch.rand(2 * count, 3, generator=generator) * span
            far = torch.rand(2 * count, 3, generator=generator) * torch.tensor(size)
            near = torch.rand(2 * count, 1, generator=generator) < 0.85
            cells = torch.cat((cells, torch.where(near, spread, far).long())).unique(dim=0)
        kept = cells[torch.randperm(len(cells), generator=generator)[:count]]
        rows.append(torch.cat((torch.full((count, 1), sample), kept), 1))
    coords = torch.cat(rows) if rows else torch.zeros(0, 4, dtype=torch.int64)
    return coords[torch.randperm(len(coords), generator=generator)].int()


def random_grid(counts: Sequence[int], resolution: int | Int3 = 16, seed: int = 0) -> VoxelGrid:
    """A grid of `random_coords`; an empty list of counts is an empty batch."""
    return VoxelGrid.build(random_coords(counts, resolution, seed), resolution=resolution, batch_size=len(counts))[0]


def full_grid(resolution: int | Int3, batch_size: int = 1) -> VoxelGrid:
    """All cells of a volume."""
    x, y, z = (resolution,) * 3 if isinstance(resolution, int) else resolution
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.int32) for n in (batch_size, x, y, z)), indexing="ij")
    return VoxelGrid.from_sorted(torch.stack(axes, -1).reshape(-1, 4), resolution=(x, y, z), batch_size=batch_size)


def fresh(grid: VoxelGrid) -> VoxelGrid:
    """The same cells without the tables that were built for them."""
    return VoxelGrid.from_sorted(grid.coords, resolution=grid.resolution, batch_size=grid.batch_size, frame=grid.frame)
