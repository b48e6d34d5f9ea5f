"""Whole volumes in overlapping tiles: where tiles lie, how results are joined, and how sparse values fill one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError

__all__ = ["Tile", "blend_weights", "dense_tile", "tile_starts", "tiles"]


@dataclass(frozen=True)
class Tile:
    """A cube of cells.

    Attributes:
        index: its place among the tiles of each axis.
        start: its first cell.
        size: cells along each axis.
    """

    index: Int3
    start: Int3
    size: int

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The cells of this tile, as an index of a volume (x, y, z)."""
        x, y, z = self.start
        return slice(x, x + self.size), slice(y, y + self.size), slice(z, z + self.size)


def tile_starts(length: int, size: int, stride: int) -> list[int]:
    """First cells of tiles along an axis: multiples of the stride, and the last tile ends where the axis ends.

    Args:
        length: cells along the axis.
        size: cells of a tile; an axis that is shorter has one tile of its own length.
        stride: between two tiles, at most size.
    Raises:
        RangeError: numbers below 1, or a stride beyond the size, which would leave gaps.
    Example:
        >>> tile_starts(512, 192, 160), tile_starts(400, 192, 160), tile_starts(64, 192, 160)
        ([0, 160, 320], [0, 160, 208], [0])
    """
    where = "tile_starts"
    require_int(where, "length", length, 1)
    require_int(where, "stride", stride, 1, require_int(where, "size", size, 1))
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def tiles(resolution: int, size: int, stride: int) -> Iterator[Tile]:
    """Tiles of a cube, z fastest; arguments and errors as `tile_starts`."""
    starts = tile_starts(resolution, size, stride)
    for i, j, k in product(range(len(starts)), repeat=3):
        yield Tile((i, j, k), (starts[i], starts[j], starts[k]), min(size, resolution))


def blend_weights(length: int, size: int, starts: Sequence[int]) -> Float[Tensor, "k s"]:
    """How much of each tile goes into each of its cells, along an axis; the weights of a cell sum to 1.

    Where a tile overlaps what lies before it, it is faded in: weights rise linearly from 0 in the first cell of the overlap to
    1 in the last. The weight of a cell in a volume is the product over the axes.

    Args:
        length: cells along the axis.
        size: cells of a tile.
        starts: of the tiles, rising, as `tile_starts` gives them.
    Returns:
        (k, size) float32, one row a tile.
    Source: Direct3D-S2's refiner, which fades along z, then y, then x; differences: none, the three do not depend on their
        order.
    Example:
        >>> blend_weights(5, 3, [0, 2])                 # one cell of overlap: the later tile has it
        tensor([[1., 1., 0.],
                [1., 1., 1.]])
    """
    size = min(size, length)
    faded = torch.zeros(len(starts), length)
    end = 0
    for row, start in enumerate(starts):
        overlap = max(end - start, 0)
        # One cell is all of the later tile's, as the last of more would be.
        fade = torch.linspace(0, 1, overlap) if overlap > 1 else torch.ones(overlap)
        fade = torch.cat([fade, torch.ones(size - overlap)])
        faded[:row, start : start + size] *= 1 - fade
        faded[row, start : start + size] = fade
        end = start + size
    return torch.stack([faded[row, start : start + size] for row, start in enumerate(starts)])


def dense_tile(cells: Tensor, values: Float[Tensor, "n c"], tile: Tile, fill: Float[Tensor, " c"]) -> Float[Tensor, "c x y z"]:
    """The cells of a tile as a dense volume.

    Args:
        cells: (n, 3) integers [x, y, z] of one sample, sorted by x.
        values: (n, c), one row a cell.
        tile: which cells.
        fill: (c,) value where no cell exists, of the dtype of values.
    Returns:
        (c, size, size, size). Differentiable in values.
    """
    low, high = torch.searchsorted(
        cells[:, 0].contiguous(), torch.tensor([tile.start[0], tile.start[0] + tile.size], device=cells.device, dtype=cells.dtype)
    ).tolist()
    local = cells[low:high].long() - torch.tensor(tile.start, device=cells.device)
    inside = ((local >= 0) & (local < tile.size)).all(1)
    x, y, z = local[inside].unbind(1)
    volume = fill.expand(tile.size, tile.size, tile.size, -1).clone()
    return volume.index_put_((x, y, z), values[low:high][inside]).permute(3, 0, 1, 2)


def require_tiling(where: str, size: int, stride: int, factor: int) -> None:
    """Raise RangeError unless tiles of this size leave no gap and halve as often as the network does."""
    require_int(where, "stride", stride, 1, require_int(where, "patch_size", size, 1))
    if size % factor:
        raise RangeError(f"{where}: patch_size must be a multiple of {factor}, one halving between each two levels; got {size}.")
