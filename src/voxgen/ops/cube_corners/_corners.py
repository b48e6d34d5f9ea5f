"""CubeCorners: the lattice points at the corners of a grid's cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from voxgen.core.aliases import Int3, Offsets
from voxgen.core.errors import CapacityError
from voxgen.core.grid import VoxelGrid

T = TypeVar("T")

STEPS = tuple((k & 1, (k >> 1) & 1, k >> 2) for k in range(8))
"""From a cell to each of its corners: x runs fastest."""
MAX_KEY = (1 << 62) - 1
"""Half of what int64 holds, so that a step beyond the last corner fits too."""
MAX_ROWS = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class CubeCorners:
    """Every corner of a cell of a grid, once. Made by `cube_corners`.

    Corner k of cell [b, x, y, z] is the lattice point [b, x + (k & 1), y + (k >> 1 & 1), z + (k >> 2)], at `Frame.to_world` of its
    coordinates. Cells of one sample share corners; those of different samples do not.

    Attributes:
        coords: (m, 4) int32 [batch, x, y, z], in lexicographic order, coordinates up to the resolution.
        index: (n, 8) int32, the rows of each cell's corners.
        offsets: (b + 1,) int64 bounds of the samples.
        resolution: of the grid, in cells.
    """

    coords: Int32[Tensor, "m 4"]
    index: Int32[Tensor, "n 8"]
    offsets: Offsets
    resolution: Int3
    _tables: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.coords)

    def __repr__(self) -> str:
        return f"CubeCorners({len(self)} corners of {len(self.index)} cells, batch_size={self.batch_size}, resolution={self.resolution})"

    @property
    def batch_size(self) -> int:
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        return self.coords.device

    @property
    def counts(self) -> Int64[Tensor, " m"]:
        """How many cells share each corner, 1 to 8. Kept after the first use."""
        return self.cached("counts", lambda: torch.bincount(self.index.flatten(), minlength=len(self)))

    def cached(self, key: str, build: Callable[[], T]) -> T:
        """The table under `key`, built on the first call."""
        if key not in self._tables:
            with torch.inference_mode(False):  # a table made during inference must serve training later
                self._tables[key] = build()
        return cast(T, self._tables[key])


def strides(resolution: Int3) -> tuple[int, int, int]:
    """Steps of a key of a corner, `((b (Rx + 1) + x) (Ry + 1) + y) (Rz + 1) + z`, along batch, x and y.

    Not the keys of cells (`core.coords.pack_keys`): those have no room for a corner beyond the last cell of the largest grid.
    """
    x, y, z = (n + 1 for n in resolution)
    return x * y * z, y * z, z


def corner_keys(coords: Tensor, resolution: Int3) -> Tensor:
    """(..., 4) → (...) int64 keys that sort like the rows."""
    b, x, y, z = coords.long().unbind(-1)
    sb, sx, sy = strides(resolution)
    return b * sb + x * sx + y * sy + z


def check_capacity(where: str, grid: VoxelGrid) -> None:
    """Raise unless keys of corners fit int64, and rows of cells int32."""
    if grid.batch_size * strides(grid.resolution)[0] > MAX_KEY or len(grid) > MAX_ROWS:
        raise CapacityError(
            f"{where}: corners need keys below 2⁶², and rows are int32; got {len(grid)} cells, {grid.batch_size} samples and the "
            f"resolution {grid.resolution}. Split the batch."
        )
