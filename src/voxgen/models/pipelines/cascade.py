"""The cells of a cascade's second pass, from what the first pass decoded."""

from __future__ import annotations

from voxgen.core import Frame, VoxelGrid
from voxgen.core.batching import counts_from_offsets
from voxgen.core.errors import RangeError

__all__ = ["cascade_grid"]

TOKEN_STEP = 128
"""By how much the resolution is lowered until the tokens fit."""
LOWEST = 1024
"""Below it the cascade does not go, whatever the number of tokens."""


def cascade_grid(cells: VoxelGrid, resolution: int, factor: int, max_tokens: int = 49_152) -> tuple[VoxelGrid, int]:
    """The latent cells of a cascade's second pass: those that hold a cell of the first pass's finest level.

    Args:
        cells: predicted at the end of the first pass.
        resolution: aim of the second pass. It is lowered by 128 while any object has `max_tokens` latent cells or more, down to 1024.
        factor: output cells along a side of a latent cell.
    Returns:
        The grid of resolution / factor cells a side, and the resolution.
    Raises:
        RangeError: a resolution that is no multiple of factor.
    Source: TRELLIS.2; the original's rounding of (c + 0.5) · side / cells, in whole numbers.
    """
    while True:
        side, rest = divmod(resolution, factor)
        if rest:
            raise RangeError(f"cascade_grid: resolution must be a multiple of {factor}; got {resolution}.")
        coarse = cells.coords.clone()
        coarse[:, 1:] = ((2 * coarse[:, 1:].long() + 1) * side // (2 * cells.resolution[0])).int()
        grid, _ = VoxelGrid.build(
            coarse.unique(dim=0), resolution=side, batch_size=cells.batch_size, frame=Frame.unit(side, cells.frame.up)
        )
        if max(counts_from_offsets(grid.offsets).tolist(), default=0) < max_tokens or resolution <= LOWEST:
            return grid, resolution
        resolution = max(LOWEST, resolution - TOKEN_STEP)
