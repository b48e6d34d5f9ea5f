"""VoxelGrid: which cells exist. Structure only; features lie beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .aliases import Coords, Int3, Keys, Offsets
from .checks import require_int, require_int3, require_tensor
from .coords import MAX_BATCH, MAX_RESOLUTION, check_coords, is_sorted, pack_keys, unpack_keys
from .errors import DuplicateError, FrameError, RangeError
from .frame import Frame

T = TypeVar("T")


class VoxelGrid:
    """An immutable, ragged batch of sparse cell sets that share one resolution and one frame.

    Rows of `coords` are [batch, x, y, z], unique, in lexicographic order. Tables that derive from the cells (neighbour
    maps, blocks, parents) are built once and kept on the grid by `cached`; they never change a result.

    Make one with `VoxelGrid.build` (any order of rows, checked) or `VoxelGrid.from_sorted` (trusted, free).

    Attributes:
        coords: (n, 4) int32.
        resolution: cells along x, y, z.
        batch_size: number of samples, empty ones included.
        frame: index ↔ world.
    Example:
        >>> grid, order = VoxelGrid.build(torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.int32), resolution=2)
        >>> grid.coords.tolist(), order.tolist()
        ([[0, 0, 0, 0], [0, 1, 0, 0]], [1, 0])
    """

    __slots__ = ("__weakref__", "_coords", "_offsets", "_tables", "batch_size", "frame", "resolution")

    def __init__(self, coords: Coords, resolution: Int3, batch_size: int, frame: Frame) -> None:
        self._coords = coords
        self.resolution = resolution
        self.batch_size = batch_size
        self.frame = frame
        self._offsets: Offsets | None = None
        self._tables: dict[Hashable, Any] = {}

    @classmethod
    def build(
        cls, coords: Tensor, *, resolution: int | Int3, batch_size: int | None = None, frame: Frame | None = None
    ) -> tuple[VoxelGrid, Tensor]:
        """Check, sort and wrap cells in any order.

        Args:
            coords: (n, 4) int32 [batch, x, y, z], unique.
            resolution: cells an axis, one number or three, at most 65,536.
            batch_size: number of samples; None takes the largest batch index + 1, so give it where trailing samples
                may be empty.
            frame: index ↔ world; None is the unit cube.
        Returns:
            The grid, and `order` (n,) int64: row i of the grid is row order[i] of the input. Rows in the grid's order
            go back to the caller's by `restore(rows, order)`.
        Raises:
            ShapeError, DtypeError: coords is not (n, 4) int32.   RangeError: a cell outside the grid or batch.
            DuplicateError: a cell comes twice; the message names it.
        """
        where = "VoxelGrid.build"
        cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
        if batch_size is not None:
            batch_size = require_int(where, "batch_size", batch_size, 0, MAX_BATCH)
        check_coords(where, coords, cells, batch_size)
        if batch_size is None:
            batch_size = int(coords[:, 0].max()) + 1 if len(coords) else 0
        keys = pack_keys(coords)
        order = torch.arange(len(keys), device=keys.device)
        if not is_sorted(keys):
            keys, order = keys.sort()
            same = keys[1:] == keys[:-1]
            if bool(same.any()):
                cell = unpack_keys(keys[1:][same][:1])[0].tolist()
                raise DuplicateError(
                    f"{where}: cells must be unique; {int(same.sum())} rows repeat an earlier one, the first is "
                    f"[batch, x, y, z] = {cell}. Merge their features before building the grid."
                )
            coords = coords[order]
        return cls(coords.contiguous(), cells, batch_size, frame or Frame.unit(cells)), order

    @classmethod
    def from_sorted(cls, coords: Coords, *, resolution: int | Int3, batch_size: int, frame: Frame | None = None) -> VoxelGrid:
        """Wrap cells that are known to be unique, in range and in lexicographic order. Checks shape and dtype only."""
        where = "VoxelGrid.from_sorted"
        require_tensor(where, "coords", coords, ("n", 4), (torch.int32,))
        cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
        return cls(coords.contiguous(), cells, batch_size, frame or Frame.unit(cells))

    @property
    def coords(self) -> Coords:
        return self._coords

    @property
    def cells(self) -> Tensor:
        """(n, 3) int32 [x, y, z], a view of `coords`."""
        return self._coords[:, 1:]

    @property
    def batch(self) -> Tensor:
        """(n,) int32 sample of each cell, a view of `coords`."""
        return self._coords[:, 0]

    @property
    def keys(self) -> Keys:
        """(n,) int64 packed cells, ascending (`core.coords.pack_keys`). Kept after the first use."""
        return self.cached(("keys",), lambda: pack_keys(self._coords))

    @property
    def offsets(self) -> Offsets:
        """(b + 1,) int64 bounds of the samples."""
        if self._offsets is None:
            samples = torch.arange(self.batch_size + 1, dtype=torch.int32, device=self.device)
            self._offsets = torch.searchsorted(self.batch.contiguous(), samples)
        return self._offsets

    @property
    def device(self) -> torch.device:
        return self._coords.device

    def __len__(self) -> int:
        return len(self._coords)

    def __repr__(self) -> str:
        return f"VoxelGrid({len(self)} cells, batch_size={self.batch_size}, resolution={self.resolution}, device={self.device})"

    def cached(self, key: Hashable, build: Callable[[], T]) -> T:
        """The table under `key`, built on the first call. Keys are tuples or frozen dataclasses that start with the table's kind."""
        if key not in self._tables:
            with torch.inference_mode(False):  # a table made during inference must serve training later
                self._tables[key] = build()
        return cast(T, self._tables[key])

    def to(self, device: torch.device | str) -> VoxelGrid:
        """The same cells on another device; itself if it is there already. Tables are not copied."""
        moved = self._coords.to(device)
        return self if moved is self._coords else VoxelGrid(moved, self.resolution, self.batch_size, self.frame)

    def rows_of(self, coords: Coords) -> Tensor:
        """Row of each given cell in this grid, (m,) int64, -1 where it does not exist. Cells outside the grid do not exist."""
        require_tensor("VoxelGrid.rows_of", "coords", coords, ("m", 4), (torch.int32,))
        if len(self) == 0:
            return torch.full((len(coords),), -1, dtype=torch.int64, device=coords.device)
        limits = torch.tensor([self.batch_size, *self.resolution], device=coords.device)
        inside = ((coords >= 0) & (coords < limits)).all(1)
        wanted = pack_keys(coords)
        rows = torch.searchsorted(self.keys, wanted).clamp_(max=len(self) - 1)
        found = inside & (self.keys[rows] == wanted)
        return torch.where(found, rows, -1)

    def select(self, keep: Tensor) -> VoxelGrid:
        """The grid of the kept rows; keep is (n,) bool, or (m,) int64 ascending rows."""
        return VoxelGrid(self._coords[keep].contiguous(), self.resolution, self.batch_size, self.frame)

    def sample(self, index: int) -> VoxelGrid:
        """Sample `index` alone, as a batch of one."""
        i = require_int("VoxelGrid.sample", "index", index, 0, self.batch_size - 1)
        start, end = self.offsets[i : i + 2].tolist()
        coords = self._coords[start:end].clone()
        coords[:, 0] = 0
        return VoxelGrid(coords, self.resolution, 1, self.frame)

    def same_cells(self, other: VoxelGrid) -> bool:
        """True if both have the same cells, batch size and resolution. Reads values unless both are one object."""
        return self is other or (
            self.batch_size == other.batch_size
            and self.resolution == other.resolution
            and self._coords.shape == other._coords.shape
            and torch.equal(self._coords, other._coords)
        )

    @staticmethod
    def batched(grids: Sequence[VoxelGrid]) -> VoxelGrid:
        """Put grids of one resolution and frame behind each other in one batch.

        Raises:
            RangeError: no grids, or different resolutions.   FrameError: different frames.
        """
        if not grids:
            raise RangeError("VoxelGrid.batched: at least one grid is needed; got none.")
        first, shift, parts = grids[0], 0, []
        for grid in grids:
            if grid.resolution != first.resolution:
                raise RangeError(f"VoxelGrid.batched: resolutions must agree; got {first.resolution} and {grid.resolution}.")
            if not grid.frame.isclose(first.frame):
                raise FrameError(f"VoxelGrid.batched: frames must agree; got {first.frame} and {grid.frame}.")
            moved = grid.coords.clone()
            moved[:, 0] += shift
            parts.append(moved)
            shift += grid.batch_size
        return VoxelGrid(torch.cat(parts), first.resolution, shift, first.frame)


def restore(rows: Tensor, order: Tensor) -> Tensor:
    """Bring rows in a grid's order back to the order of the coordinates it was built from (`VoxelGrid.build`)."""
    result = torch.empty_like(rows)
    return result.index_copy(0, order, rows)
