"""SparseTensor: a grid and one row of features for each of its cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .aliases import Feats, Int3
from .batching import unpack
from .checks import require_same_device, require_tensor
from .errors import ShapeError
from .frame import Frame
from .grid import VoxelGrid


class SparseTensor:
    """Features on the cells of a grid.

    Args:
        grid: (n cells) the structure.
        feats: (n, c), any dtype, on the grid's device; row i belongs to cell i of the grid.
    Raises:
        ShapeError: another number of rows, or feats is not two-dimensional.   DeviceError: another device.
    Example:
        >>> x = SparseTensor.build(coords, feats, resolution=64)
        >>> y = x.with_feats(torch.relu(x.feats))     # same grid, same tables
    """

    __slots__ = ("feats", "grid")

    def __init__(self, grid: VoxelGrid, feats: Feats) -> None:
        require_tensor("SparseTensor", "feats", feats, ("n", "c"))
        if len(feats) != len(grid):
            raise ShapeError(f"SparseTensor: feats must have one row for each of the grid's {len(grid)} cells; got {tuple(feats.shape)}.")
        require_same_device("SparseTensor", coords=grid.coords, feats=feats)
        self.grid = grid
        self.feats = feats

    @staticmethod
    def build(
        coords: Tensor, feats: Feats, *, resolution: int | Int3, batch_size: int | None = None, frame: Frame | None = None
    ) -> SparseTensor:
        """Wrap cells in any order with their features; arguments and errors as in `VoxelGrid.build`."""
        require_tensor("SparseTensor.build", "feats", feats, ("n", "c"))
        if len(coords) != len(feats):
            raise ShapeError(f"SparseTensor.build: coords and feats must have equal rows; got {len(coords)} and {len(feats)}.")
        grid, order = VoxelGrid.build(coords, resolution=resolution, batch_size=batch_size, frame=frame)
        return SparseTensor(grid, feats[order])

    @property
    def coords(self) -> Tensor:
        """(n, 4) int32, the grid's."""
        return self.grid.coords

    @property
    def channels(self) -> int:
        return self.feats.shape[1]

    @property
    def device(self) -> torch.device:
        return self.feats.device

    @property
    def dtype(self) -> torch.dtype:
        return self.feats.dtype

    def __len__(self) -> int:
        return len(self.grid)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"SparseTensor({len(self)} × {self.channels} {dtype}, {self.grid!r})"

    def with_feats(self, feats: Feats) -> SparseTensor:
        """Other features on the same grid."""
        return SparseTensor(self.grid, feats)

    def to(self, target: torch.device | str | torch.dtype) -> SparseTensor:
        """Move to a device, or convert the features to a dtype."""
        if isinstance(target, torch.dtype):
            return SparseTensor(self.grid, self.feats.to(target))
        return SparseTensor(self.grid.to(target), self.feats.to(target))

    def unbind(self) -> tuple[SparseTensor, ...]:
        """One batch of one for each sample, empty ones included."""
        rows = unpack(self.feats, self.grid.offsets)
        return tuple(SparseTensor(self.grid.sample(i), feats) for i, feats in enumerate(rows))

    @staticmethod
    def batched(tensors: Sequence[SparseTensor]) -> SparseTensor:
        """Put tensors of one resolution, frame and width behind each other in one batch."""
        return SparseTensor(VoxelGrid.batched([t.grid for t in tensors]), torch.cat([t.feats for t in tensors]))

    def dense(self) -> Tensor:
        """(b, c, x, y, z) with zeros where no cell exists. For small grids: memory grows with the cube."""
        x, y, z = self.grid.resolution
        out = self.feats.new_zeros(self.grid.batch_size, x, y, z, self.channels)
        b, i, j, k = self.coords.long().unbind(1)
        return out.index_put((b, i, j, k), self.feats).permute(0, 4, 1, 2, 3)
