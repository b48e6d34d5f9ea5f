"""The definition: look up the four cells around each crossed edge."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.batching import offsets_from_counts
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import lookup_cells

from ._connectivity import CORNERS, Connectivity, Quads, Rule
from ._triangulate import triangulate


def connect(
    grid: VoxelGrid, dual: Tensor, intersected: Tensor, crossing_sign: Tensor | None, weight: Tensor | None, rule: Rule, keep_unused: bool
) -> Connectivity:
    """See `dual_faces`."""
    return triangulate(grid, find_quads(grid, intersected, crossing_sign), dual, weight, rule, keep_unused)


def find_quads(grid: VoxelGrid, intersected: Tensor, crossing_sign: Tensor | None) -> Quads:
    """All complete quads."""
    owner, axis = intersected.nonzero().unbind(1)
    step = torch.tensor(CORNERS, dtype=torch.int32, device=grid.device)[axis]
    around = grid.coords[owner][:, None].repeat(1, 4, 1)
    around[:, :, 1:] += step
    rows = lookup_cells(grid, around.reshape(-1, 4), backend="reference").reshape(-1, 4)
    complete = (rows >= 0).all(1)
    sample = grid.batch[owner]
    counts = torch.bincount(sample[complete], minlength=grid.batch_size)
    dropped = torch.bincount(sample[~complete], minlength=grid.batch_size)
    if crossing_sign is not None:
        rows = torch.where(crossing_sign[owner, axis][:, None], rows[:, [0, 3, 2, 1]], rows)
    return Quads(rows[complete], axis[complete].to(torch.uint8), offsets_from_counts(counts), dropped)
