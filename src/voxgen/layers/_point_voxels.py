"""Which voxel a point lies in, and points in the order of their voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Offsets
from voxgen.core.batching import batch_index
from voxgen.core.coords import pack_keys
from voxgen.core.errors import RangeError
from voxgen.ops.lookup import lookup_cells

Stray = Literal["error", "drop", "compat"]
"""What happens to a point whose voxel does not exist; see `PointCloudEncoder`."""

MARGIN = 1e-6
"""Points are kept this share of the box's side away from its border."""


@dataclass(frozen=True, eq=False)
class PointVoxels:
    """Points sorted by voxel.

    Attributes:
        order: (q,) which point each row is; strays that were dropped are in none.
        local: (q, 3) place in its cell, in [−1, 1]³.
        rows: (m,) rows of the grid that have points, ascending.
        bounds: (m + 1,) the points of voxel rows[i] are bounds[i]:bounds[i + 1].
    """

    order: Int64[Tensor, " q"]
    local: Float[Tensor, "q 3"]
    rows: Int64[Tensor, " m"]
    bounds: Int64[Tensor, " m+1"]


def sort_points(where: str, points: Tensor, offsets: Offsets, grid: VoxelGrid, stray: Stray) -> PointVoxels:
    """Bring points, (p, 3) in world units, into the order of the cells of the grid; equal cells keep the order of points."""
    place = clamped_places(points, grid)
    cell = place.floor().detach()
    coords = torch.cat([batch_index(offsets, torch.int32)[:, None], cell.int()], 1)
    rows = lookup_cells(grid, coords).long()
    missing = rows < 0
    if stray == "error":
        _require_all(where, coords, missing)
    elif stray == "compat":
        rows = torch.where(missing, _next_rows(grid, coords), rows)
        missing = rows < 0
    kept = (~missing).nonzero()[:, 0]
    kept = kept[rows[kept].argsort(stable=True)]
    occupied, counts = rows[kept].unique_consecutive(return_counts=True)
    local = 2 * (place.index_select(0, kept) - cell[kept] - 0.5)
    return PointVoxels(kept, local, occupied, F.pad(counts.cumsum(0), (1, 0)))


def clamped_places(points: Tensor, grid: VoxelGrid) -> Tensor:
    """(p, 3) positions in cells, inside the grid's box."""
    sides = torch.tensor(grid.resolution, dtype=points.dtype, device=points.device)
    return (grid.frame.to_index(points) / sides).clamp(MARGIN, 1 - MARGIN) * sides


def runs_of_voxels(bounds: Tensor, size: int) -> Iterator[tuple[int, int, Tensor]]:
    """Start and end of runs of about `size` points that split no voxel, each with the bounds of its voxels, from 0."""
    total = int(bounds[-1])
    steps = torch.arange(0, total, size, device=bounds.device)
    cuts = torch.cat([torch.searchsorted(bounds, steps), bounds.new_tensor([len(bounds) - 1])]).unique()
    marks = zip(cuts.tolist(), bounds[cuts].tolist(), strict=True)
    before = next(marks)
    for mark in marks:
        yield before[1], mark[1], bounds[before[0] : mark[0] + 1] - before[1]
        before = mark


def _require_all(where: str, coords: Tensor, missing: Tensor) -> None:
    if bool(missing.any()):
        first = int(missing.nonzero()[0])
        raise RangeError(
            f"{where}: each point must lie in a voxel of the grid; {int(missing.sum())} of {len(coords)} do not, the first is point "
            f"{first} in cell [batch, x, y, z] = {coords[first].tolist()}. Make the voxels from the points, or set stray='drop'."
        )


def _next_rows(grid: VoxelGrid, coords: Tensor) -> Tensor:
    """The first row at or after each cell in its sample; −1 behind the sample's last."""
    rows = torch.searchsorted(grid.keys, pack_keys(coords))
    return torch.where(rows < grid.offsets[coords[:, 0].long() + 1], rows, -1)
