"""Selection: which cells of a grid are wanted. What carving, zooming and sectioning give, so that they combine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, overload

import torch
from jaxtyping import Bool
from torch import Tensor

from .checks import describe, require_same_device, require_tensor
from .errors import DtypeError, RangeError, ShapeError
from .grid import VoxelGrid
from .sparse_tensor import SparseTensor

R = TypeVar("R", VoxelGrid, SparseTensor, Tensor)


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Some cells of a grid.

    Selections of one grid combine: `carve & zoom`, `carve | other`, `~carve`; the result is a plain Selection. `apply` makes a new
    grid, so no table that was built for all cells is used for some of them.

    Args:
        grid: (n cells).
        mask: (n,) bool, rows as the grid's.
    Raises:
        ShapeError, DtypeError, DeviceError: a mask that does not fit the grid.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32), resolution=2)
        >>> some = Selection(grid, torch.tensor([True, False]))
        >>> len(some.apply(grid)), (some | ~some).share
        (1, 1.0)
    """

    grid: VoxelGrid
    mask: Bool[Tensor, " n"]

    def __post_init__(self) -> None:
        where = type(self).__name__
        require_tensor(where, "mask", self.mask, (len(self.grid),), (torch.bool,), hint="One entry a cell of the grid.")
        require_same_device(where, grid=self.grid.coords, mask=self.mask)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count:,} of {self.grid!r})"

    @staticmethod
    def all(grid: VoxelGrid) -> Selection:
        """Every cell."""
        return Selection(grid, torch.ones(len(grid), dtype=torch.bool, device=grid.device))

    @property
    def count(self) -> int:
        """How many cells are selected. Waits for the GPU."""
        return int(self.mask.sum())

    @property
    def share(self) -> float:
        """Selected cells among all; 0 for an empty grid."""
        return self.count / max(1, len(self.grid))

    @property
    def counts(self) -> Tensor:
        """(b,) int64 selected cells of each sample."""
        before = torch.nn.functional.pad(self.mask.cumsum(0), (1, 0))
        return before[self.grid.offsets].diff()

    @property
    def rows(self) -> Tensor:
        """(m,) int64 ascending rows of the selected cells."""
        return self.mask.nonzero()[:, 0]

    @overload
    def apply(self, x: VoxelGrid) -> VoxelGrid: ...
    @overload
    def apply(self, x: SparseTensor) -> SparseTensor: ...
    @overload
    def apply(self, x: Tensor) -> Tensor: ...
    def apply(self, x: VoxelGrid | SparseTensor | Tensor) -> VoxelGrid | SparseTensor | Tensor:
        """The selected rows of a grid, of a sparse tensor, or of any (n, ...) tensor with a row a cell.

        Differentiable; rows that are not selected get a gradient of zero. A sparse tensor gets a new grid.

        Raises:
            RangeError: a grid of other cells.   ShapeError: another number of rows.   DtypeError: something else.
        """
        if isinstance(x, SparseTensor):
            return SparseTensor(self.apply(x.grid), x.feats.index_select(0, self.rows))
        if isinstance(x, VoxelGrid):
            _require_cells("Selection.apply", self.grid, x)
            return x.select(self.mask)
        if not isinstance(x, Tensor):
            raise DtypeError(f"Selection.apply: x must be a VoxelGrid, a SparseTensor or a tensor; got {describe(x)}.")
        if x.ndim == 0 or len(x) != len(self.grid):
            raise ShapeError(f"Selection.apply: x must have one row for each of the {len(self.grid)} cells; got {describe(x)}.")
        return x.index_select(0, self.rows)

    def __and__(self, other: Selection) -> Selection:
        """Cells of both."""
        _require_cells("Selection &", self.grid, other.grid)
        return Selection(self.grid, self.mask & other.mask)

    def __or__(self, other: Selection) -> Selection:
        """Cells of either."""
        _require_cells("Selection |", self.grid, other.grid)
        return Selection(self.grid, self.mask | other.mask)

    def __invert__(self) -> Selection:
        """The cells that are not selected."""
        return Selection(self.grid, ~self.mask)


def _require_cells(where: str, mine: VoxelGrid, other: VoxelGrid) -> None:
    if not mine.same_cells(other):
        raise RangeError(f"{where}: both sides must be of the same cells; got {mine!r} and {other!r}. Is one of another level?")
