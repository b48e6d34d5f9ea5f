"""Tiling: decoding the later levels piece by piece, with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.checks import require_int

from ._blocks import REACH, UP_REACH
from .config import DecoderConfig


@dataclass(frozen=True)
class Tiling:
    """Cut what enters a level of a decoder into cubes, and decode cube by cube from there.

    Each cube is decoded with a halo around it (`halo`), as wide as its result can depend on, and of the result only what
    descends from the cube itself is kept. So the pieces joined are the whole decode, up to the rounding of matrix products of
    other sizes; a logit that is 0 up to rounding may fall on the other side.

    Args:
        size: side of a cube, in cells of the level that is cut.
        from_stage: the level whose input is cut, 0 for the latent; None cuts before the last step to a finer level, where
            the rows are most and the halo is small.
    Memory: the levels before the cut as without tiling; after it the levels of one cube of side `size + 2 · halo` at a time, and
        besides them only cells, logits and the last layer's outputs of the whole. With gradients, all cubes' activations stay.
    Time: the halo is decoded again for each cube: about ((size + 2 · halo) / size)² for a surface.
    Example:
        >>> whole, tiled = vae.decode(latent), vae.decode(latent, tiling=Tiling(size=4))
        >>> torch.allclose(tiled.head.feats, whole.head.feats, atol=1e-4)
        True
    """

    size: int = 64
    from_stage: int | None = None

    def __post_init__(self) -> None:
        require_int("Tiling", "size", self.size, 1)
        if self.from_stage is not None:
            require_int("Tiling", "from_stage", self.from_stage, 0)

    def first_level(self, num_levels: int) -> int:
        """The level that is cut, in a decoder of this many.

        Raises:
            RangeError: it does not have that level.
        """
        if self.from_stage is None:
            return max(num_levels - 2, 0)
        return require_int("Tiling", "from_stage", self.from_stage, 0, num_levels - 1)


def halo(config: DecoderConfig, level: int) -> int:
    """Cells around a cube at the input of `level` on which what descends from the cube depends.

    Let h(i) be that width at the input of level i, in its cells. After the last level's blocks nothing more is needed, so there
    h = the reach of its blocks: one cell for each 3³ convolution in a row. At another level the blocks need b cells, the
    resampling block c convolutions at the coarse level and f at the fine one, and the next level h(i + 1). Children of a cube
    widened by m cells are the cube's children widened by 2m, so m = ⌈(h(i + 1) + f) / 2⌉ coarse cells hold all that the fine
    level needs, and h(i) = b + c + m. Within those m cells everything is exact, features and which children exist alike: the
    logits are read from the input of the resampling block, which depends on b cells only. Norms, linear layers and shortcuts
    look at one cell. What is wrong farther out, wrongly pruned cells included, never comes closer than that.
    """
    blocks = config.num_blocks[level] * REACH[config.block_type[level]]
    if level == config.num_levels - 1:
        return blocks
    coarse, fine = UP_REACH[config.up_block_type[level]]
    return blocks + coarse + -(-(halo(config, level + 1) + fine) // 2)


def cubes(grid: VoxelGrid, size: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the grid in each cube widened by `width`, ascending, and which of them lie in the cube itself. Sample by sample."""
    for sample in range(grid.batch_size):
        start, end = grid.offsets[sample : sample + 2].tolist()
        cells = grid.cells[start:end]
        for cube in (cells // size).unique(dim=0):
            low = cube * size
            rows = ((cells >= low - width) & (cells < low + size + width)).all(1).nonzero().flatten()
            inside = ((cells[rows] >= low) & (cells[rows] < low + size)).all(1)
            yield rows + start, inside


def count_cubes(grid: VoxelGrid, size: int) -> int:
    divisor = torch.tensor([1, size, size, size], dtype=torch.int32, device=grid.device)
    return len((grid.coords // divisor).unique(dim=0))
