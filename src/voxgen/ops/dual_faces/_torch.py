"""Quads by six neighbours of every cell from the block index, for any device."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.batching import offsets_from_counts
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._torch import rows_near

from ._connectivity import CORNERS, Connectivity, Quads, Rule
from ._triangulate import triangulate

CHUNK = {"cpu": 1 << 17, "other": 1 << 22}
"""Cells treated at once; some 150 bytes each."""
STEPS = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0))
COLUMNS = tuple(tuple(((0, 0, 0), *STEPS).index(corner) for corner in quad) for quad in CORNERS)
"""Where the corners of the quad of each axis stand among a cell and its six neighbours."""


def connect(
    grid: VoxelGrid, dual: Tensor, intersected: Tensor, crossing_sign: Tensor | None, weight: Tensor | None, rule: Rule, keep_unused: bool
) -> Connectivity:
    """See `dual_faces`."""
    return triangulate(grid, find_quads(grid, intersected, crossing_sign), dual, weight, rule, keep_unused)


def find_quads(grid: VoxelGrid, intersected: Tensor, crossing_sign: Tensor | None) -> Quads:
    """All complete quads."""
    owners = intersected.any(1).nonzero()[:, 0]
    step = CHUNK["cpu" if grid.device.type == "cpu" else "other"]
    found = [_complete(grid, part, intersected[part]) for part in owners.split(step)]
    rows, axis = (torch.cat(parts) for parts in zip(*found, strict=True))
    owner = rows[:, 0]
    sample = grid.batch[owner]
    counts = torch.bincount(sample, minlength=grid.batch_size)
    flagged = torch.bincount(grid.batch[owners], weights=intersected[owners].sum(1), minlength=grid.batch_size).long()
    if crossing_sign is not None:
        turned = crossing_sign[owner, axis.long()][:, None]
        rows = torch.where(turned, rows[:, [0, 3, 2, 1]], rows)
    return Quads(rows, axis, offsets_from_counts(counts), flagged - counts)


def _complete(grid: VoxelGrid, owners: Tensor, flags: Tensor) -> tuple[Tensor, Tensor]:
    """(q, 4) rows and (q,) axes of the quads that these cells own."""
    b, x, y, z = grid.coords[owners].unbind(1)
    index = block_index(grid, backend="torch")
    around = [owners.int(), *(rows_near(index, b, x + i, y + j, z + k) for i, j, k in STEPS)]
    quads = torch.stack([torch.stack([around[c] for c in columns], 1) for columns in COLUMNS], 1)
    cell, axis = (flags & (quads >= 0).all(2)).nonzero().unbind(1)
    return quads[cell, axis], axis.to(torch.uint8)
