"""The cells of a box."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import RangeError


def crop_grid(where: str, grid: VoxelGrid, low: Int3, high: Int3, rebase: bool) -> tuple[VoxelGrid, Tensor]:
    """The cells with low <= (x, y, z) < high, and which rows they are, (n,) bool.

    Args:
        low, high: cell indices; parts of the box outside the grid hold no cells.
        rebase: make `low` the new cell (0, 0, 0) and the box the new grid; the frame moves along, so world positions stay.
    Raises:
        RangeError: an empty box; with `rebase`, a box that is not inside the grid.
    """
    a = require_int3(where, "low", low, -MAX_RESOLUTION, MAX_RESOLUTION)
    b = require_int3(where, "high", high, -MAX_RESOLUTION, MAX_RESOLUTION)
    if any(top <= bottom for bottom, top in zip(a, b, strict=True)):
        raise RangeError(f"{where}: high must exceed low on every axis; got low={a}, high={b}.")
    cells = grid.cells
    keep = ((cells >= torch.tensor(a, device=cells.device)) & (cells < torch.tensor(b, device=cells.device))).all(1)
    kept = grid.select(keep)
    if rebase:
        if any(bottom < 0 or top > end for bottom, top, end in zip(a, b, grid.resolution, strict=True)):
            raise RangeError(f"{where}: rebase needs a box inside the grid of {grid.resolution} cells; got low={a}, high={b}.")
        coords = kept.coords - torch.tensor([0, *a], dtype=torch.int32, device=cells.device)
        x, y, z = (top - bottom for bottom, top in zip(a, b, strict=True))
        kept = VoxelGrid(coords, (x, y, z), grid.batch_size, grid.frame.shifted(a))
    return kept, keep
