"""A layer of voxgen inside a network that passes tensors of another library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import describe, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore

from . import _spconv, _torchsparse, _trellis
from ._imported import Rows, build_grid

Library = Literal["trellis", "torchsparse", "torchsparse-2.0", "spconv", "spconv-zyx"]
"""Whose tensors: see `from_trellis`, `from_torchsparse` (with its versions), `from_spconv` (with its axes)."""


class _Adapter(NamedTuple):
    read: Callable[[Any], Rows]
    replace: Callable[[Any, Tensor], Any]


_ADAPTERS = {
    "trellis": _Adapter(_trellis.read, _trellis.replace),
    "torchsparse": _Adapter(partial(_torchsparse.read, version="2.1"), _torchsparse.replace),
    "torchsparse-2.0": _Adapter(partial(_torchsparse.read, version="2.0"), _torchsparse.replace),
    "spconv": _Adapter(partial(_spconv.read, axes="xyz"), _spconv.replace),
    "spconv-zyx": _Adapter(partial(_spconv.read, axes="zyx"), _spconv.replace),
}


class _Entry(NamedTuple):
    coords: Tensor
    asked: tuple[int | Int3 | None, int | None]
    grid: VoxelGrid
    order: Tensor | None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


class GridCache:
    """Grids of the last few sets of cells, with the tables that layers built on them.

    Give one cache to all layers that see the same cells, so that these are sorted, and their neighbours found, once. An entry
    is found by comparing cells, all of them, so a set of cells that changed in place is never mistaken for another. That
    takes under a hundredth of a 3x3x3 convolution's time and, on a GPU, makes the CPU wait. A copy of a cache, as in a copy of
    a network, starts empty.

    Args:
        size: sets of cells to keep: one for each level of a network; 0 keeps none.
    Memory: the cells twice and the tables (108 bytes a cell for 3x3x3) for each set.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = require_int("GridCache", "size", size, 0)
        self._entries: tuple[_Entry, ...] = ()

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[type[GridCache], tuple[int]]:
        return GridCache, (self.size,)

    def clear(self) -> None:
        """Forget all."""
        self._entries = ()

    def _find(self, where: str, rows: Rows, resolution: int | Int3 | None, batch_size: int | None) -> _Entry:
        """The grid of the rows and their order, None where they are in the grid's."""
        asked = (resolution or rows.resolution, batch_size if batch_size is not None else rows.batch_size)
        for entry in self._entries:
            if entry.asked == asked and _same(entry.coords, rows.coords):
                self._keep(entry)
                return entry
        with torch.inference_mode(False):  # what is made during inference must serve training later
            grid, order = build_grid(where, rows, resolution, batch_size, None)
            ordered = torch.equal(grid.coords, rows.coords)
            entry = _Entry(grid.coords if ordered else rows.coords.detach().clone(), asked, grid, None if ordered else order)
        self._keep(entry)
        return entry

    def _keep(self, entry: _Entry) -> None:
        """Make it the last one used. One assignment, so that threads see the old or the new list."""
        self._entries = (entry, *(e for e in self._entries if e is not entry))[: self.size]


class DropInLayer(nn.Module):
    """A voxgen layer in the place of a layer of existing research code: takes and returns that code's sparse tensors.

    The result is the foreign tensor with other features (`replace` and its like), so class, row order, layout and what else
    it carries stay. Only for layers that keep the cells; around others, use the functions `from_…` and `to_…`.

    Args:
        layer: a module from SparseTensor to SparseTensor, such as `SparseConv3d` or `SparseConvNeXtBlock`.
        library: see `Library`.
        cache: see `GridCache`; None gives the layer one of its own.
        resolution, batch_size: as in `from_trellis`; None takes what the tensor states.
    Raises (forward):
        DtypeError, ShapeError, RangeError, DuplicateError: as `from_trellis`.   RangeError: the layer changed the cells.
    Parameters: those of the layer, under `layer.`; `voxgen.ops.conv.layouts.from_layout` converts weights.
    Differentiable as the layer is.
    Example:
        >>> cache = GridCache()
        >>> first = DropInLayer(SparseConv3d(4, 16), "trellis", cache=cache)
        >>> second = DropInLayer(SparseConvNeXtBlock(16), "trellis", cache=cache)
        >>> y = second(first(x))                                  # x: any object with coords, feats (n, 4) and replace(feats)
        >>> type(y) is type(x), y.coords is x.coords, tuple(y.feats.shape), len(cache)
        (True, True, (50, 16), 1)
    """

    def __init__(
        self,
        layer: nn.Module,
        library: Library = "trellis",
        *,
        cache: GridCache | None = None,
        resolution: int | Int3 | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.library = require_choice("DropInLayer", "library", library, tuple(_ADAPTERS))
        self.cache = GridCache() if cache is None else cache
        self.resolution = resolution
        self.batch_size = batch_size

    def forward(self, x: Any) -> Any:
        where = "DropInLayer"
        adapter = _ADAPTERS[self.library]
        rows = adapter.read(x)
        require_tensor(where, "feats", rows.feats, ("n", "c"))
        require_tensor(where, "coords", rows.coords, ("n", 4), (torch.int32,))
        if len(rows.coords) != len(rows.feats):
            raise ShapeError(f"{where}: coords and feats must have equal rows; got {len(rows.coords)} and {len(rows.feats)}.")
        require_same_device(where, coords=rows.coords, feats=rows.feats)
        _, _, grid, order = self.cache._find(where, rows, self.resolution, self.batch_size)
        y = self.layer(SparseTensor(grid, rows.feats if order is None else rows.feats.index_select(0, order)))
        if not isinstance(y, SparseTensor):
            raise DtypeError(f"{where}: the layer must return a SparseTensor; got {describe(y)}.")
        if not y.grid.same_cells(grid):
            raise RangeError(f"{where}: the layer must keep the cells; it made {len(y)} of {len(grid)}. Use from_… and to_… around others.")
        return adapter.replace(x, y.feats if order is None else restore(y.feats, order))

    def extra_repr(self) -> str:
        return f"library={self.library!r}"
