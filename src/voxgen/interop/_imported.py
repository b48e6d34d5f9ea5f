"""What the sparse tensors of all libraries have in common: rows of cells and features in an order of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import describe, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore


class Imported(NamedTuple):
    """A foreign tensor as a SparseTensor, and where its rows were.

    Attributes:
        tensor: rows in lexicographic order of the cells.
        order: (n,) int64; row i of `tensor` is row order[i] of the foreign tensor. The functions `to_…` take it to bring rows
            back into that order.
    """

    tensor: SparseTensor
    order: Tensor


class Rows(NamedTuple):
    """What is read off a foreign tensor. Nothing is copied."""

    coords: Tensor
    """(n, 4) int32 [batch, x, y, z], in any order."""
    feats: Tensor
    resolution: Int3 | None
    """None where the tensor does not state it."""
    batch_size: int | None


def attribute(where: str, tensor: Any, name: str, kind: str) -> Any:
    """An attribute that every tensor of this kind has, or DtypeError."""
    if not hasattr(tensor, name):
        raise DtypeError(f"{where}: needs a {kind} with an attribute {name!r}; got {describe(tensor)}.")
    return getattr(tensor, name)


def build_grid(
    where: str, rows: Rows, resolution: int | Int3 | None, batch_size: int | None, frame: Frame | None
) -> tuple[VoxelGrid, Tensor]:
    """The grid of the rows, which shares no memory with them, and its order; arguments win over what the tensor states."""
    hint = "Rows are [batch, x, y, z]."
    coords = require_tensor(where, "coords", rows.coords, ("n", 4), (torch.int32,), hint=hint).detach()
    size = resolution if resolution is not None else rows.resolution
    if size is None:
        size = _smallest_box(where, coords)
    grid, order = VoxelGrid.build(coords, resolution=size, batch_size=rows.batch_size if batch_size is None else batch_size, frame=frame)
    if grid.coords.data_ptr() == coords.data_ptr() and len(coords):  # foreign code may write to its own
        grid = VoxelGrid.from_sorted(coords.clone(), resolution=grid.resolution, batch_size=grid.batch_size, frame=grid.frame)
    return grid, order


def import_rows(where: str, rows: Rows, resolution: int | Int3 | None, batch_size: int | None, frame: Frame | None) -> Imported:
    """Sort rows into a SparseTensor."""
    require_tensor(where, "feats", rows.feats, ("n", "c"))
    if len(rows.coords) != len(rows.feats):
        raise ShapeError(f"{where}: coords and feats must have equal rows; got {len(rows.coords)} and {len(rows.feats)}.")
    require_same_device(where, coords=rows.coords, feats=rows.feats)
    grid, order = build_grid(where, rows, resolution, batch_size, frame)
    return Imported(SparseTensor(grid, rows.feats.index_select(0, order)), order)


def export_rows(where: str, x: SparseTensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cells (n, 4) and features of x in the order asked for; None keeps that of the grid. Shares no memory with the grid."""
    if order is None:
        return x.coords.clone(), x.feats
    require_tensor(where, "order", order, (len(x),), (torch.int64,), hint="It comes from the function that imported the tensor.")
    return restore(x.coords, order), restore(x.feats, order)


def require_same_rows(where: str, coords: Tensor, like: Tensor) -> None:
    """Raise unless the cells to export are those of the tensor whose features they replace. Reads values."""
    if coords.shape != like.shape or not torch.equal(coords, like):
        raise RangeError(
            f"{where}: x, brought into `order`, must have the cells of `like`, row by row; {len(coords)} rows against {len(like)} differ. "
            "Give the order that came with the import of `like`; a layer that changes cells needs a new tensor: leave `like` out."
        )


def _smallest_box(where: str, coords: Tensor) -> Int3:
    if len(coords) == 0:
        return 1, 1, 1
    x, y, z = (coords.amax(0)[1:] + 1).tolist()
    if min(x, y, z) < 1:
        raise RangeError(
            f"{where}: cells must not be negative; the largest are {(x - 1, y - 1, z - 1)}. Subtract the smallest of each axis."
        )
    return x, y, z
