"""Coarser and finer levels of a grid, and the orders of a parent's children."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3, require_same_device, require_tensor
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import CapacityError, RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.core.memory import require_memory
from voxgen.ops.lookup import MAX_ROWS

ChildOrder = Literal["x_fastest", "x_slowest"]
"""Which of a parent's children comes first: slot = x + 2y + 4z ("x_fastest", TRELLIS.2) or 4x + 2y + z ("x_slowest")."""


CHILD_BYTES = 64
"""What making a child takes at the peak: its key, cell, parent and place, before and after they are sorted."""
MANY = 1 << 20
"""Children from which on the system is asked whether there is memory for them, which takes a part of a millisecond."""


def parents(grid: VoxelGrid, factor: int | Int3 = 2) -> VoxelGrid:
    """Cells of the next coarser level that have a child in the grid: [b, x, y, z] → [b, x // f, y // f, z // f].

    Args:
        grid: any number of cells.
        factor: children along each axis, one number or three.
    Returns:
        A grid of resolution ceil(resolution / factor) in the coarser frame. Built once and kept on `grid`, so that all
        who ask share it and its tables.
    Raises:
        RangeError: a factor below 1.   CapacityError: 2³¹ cells or more, because rows are int32.
    Empty samples stay empty.
    """
    return _coarser(grid, require_int3("parents", "factor", factor, 1, MAX_RESOLUTION))[0]


def parent_rows(grid: VoxelGrid, factor: int | Int3 = 2) -> Int32[Tensor, " n"]:
    """The row of each cell's parent in `parents(grid, factor)`, (n,) int32; arguments and errors as there."""
    return _coarser(grid, require_int3("parent_rows", "factor", factor, 1, MAX_RESOLUTION))[1]


def children(
    grid: VoxelGrid, mask: Bool[Tensor, "n 8"] | None = None, factor: int | Int3 = 2, *, order: ChildOrder = "x_fastest"
) -> VoxelGrid:
    """Cells of the next finer level: all children of each cell, or those that a mask keeps.

    Args:
        grid: any number of cells.
        mask: (n, fx·fy·fz) bool, one column a child in the given order; None keeps all.
        factor: children along each axis, one number or three.
        order: which column is which child.
    Returns:
        A new grid of `factor` times the resolution in the finer frame. A mask that keeps nothing gives an empty grid.
    Raises:
        ShapeError, DtypeError: the mask is not (n, fx·fy·fz) bool.   RangeError: a factor below 1, or a resolution that
        would exceed 65,536.   DeviceError: mask and grid on different devices.   CapacityError: 2³¹ children or more, or
        more than memory holds.
    """
    return refine("children", grid, mask, factor, order)[0]


def refine(where: str, grid: VoxelGrid, mask: Tensor | None, factor: int | Int3, order: ChildOrder) -> tuple[VoxelGrid, Tensor, Tensor]:
    """`children`, with the row of each child's parent and its place [x, y, z] within it, (n,) and (n, 3) int32."""
    f = require_int3(where, "factor", factor, 1, MAX_RESOLUTION)
    resolution = require_int3(where, "the finer resolution", [r * k for r, k in zip(grid.resolution, f, strict=True)], 1, MAX_RESOLUTION)
    offsets = child_offsets(f, order, grid.device)
    if mask is None:
        _require_children(where, grid, len(grid) * len(offsets))
        parent = torch.arange(len(grid), device=grid.device).repeat_interleave(len(offsets))
        slot = torch.arange(len(offsets), device=grid.device).repeat(len(grid))
    else:
        require_tensor(where, "mask", mask, (len(grid), len(offsets)), (torch.bool,), hint="One row a cell, one column a child.")
        require_same_device(where, grid=grid.coords, mask=mask)
        _require_children(where, grid, int(mask.sum()))
        parent, slot = mask.nonzero().unbind(1)
    first = grid.coords * torch.tensor([1, *f], dtype=torch.int32, device=grid.device)
    keys, sequence = pack_keys(first[parent] + torch.nn.functional.pad(offsets, (1, 0))[slot]).sort()
    fine = VoxelGrid.from_sorted(unpack_keys(keys), resolution=resolution, batch_size=grid.batch_size, frame=grid.frame.refine(f))
    return fine, parent[sequence].int(), offsets[slot[sequence]]


def _require_children(where: str, grid: VoxelGrid, count: int) -> None:
    remedy = "Keep fewer children, or split the batch."
    if count > MAX_ROWS:
        raise CapacityError(
            f"{where}: rows are int32, so a grid may have at most {MAX_ROWS} cells; {count} children were asked for. {remedy}"
        )
    if count > MANY:
        require_memory(where, CHILD_BYTES * count, grid.device, remedy)


def child_offsets(factor: Int3, order: ChildOrder, device: torch.device | str = "cpu") -> Int32[Tensor, "s 3"]:
    """The place [x, y, z] of each child within its parent, in the given order of children."""
    axes = [torch.arange(f, dtype=torch.int32, device=device) for f in factor]
    if order == "x_fastest":
        return torch.stack(torch.meshgrid(*axes[::-1], indexing="ij"), -1).reshape(-1, 3).flip(1)
    if order == "x_slowest":
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    raise RangeError(f"child_offsets: order must be 'x_fastest' or 'x_slowest'; got {order!r}.")


def _coarser(grid: VoxelGrid, factor: Int3) -> tuple[VoxelGrid, Tensor]:
    if len(grid) > MAX_ROWS:
        raise CapacityError(f"parents: rows are int32, so a grid may have at most {MAX_ROWS} cells; got {len(grid)}. Split the batch.")

    def build() -> tuple[VoxelGrid, Tensor]:
        divisor = torch.tensor([1, *factor], dtype=torch.int32, device=grid.device)
        keys, rows = pack_keys(grid.coords // divisor).unique(return_inverse=True)
        x, y, z = (-(-r // f) for r, f in zip(grid.resolution, factor, strict=True))
        coarse = VoxelGrid.from_sorted(
            unpack_keys(keys), resolution=(x, y, z), batch_size=grid.batch_size, frame=grid.frame.coarsen(factor)
        )
        return coarse, rows.int()

    return grid.cached(("parents", factor), build)
