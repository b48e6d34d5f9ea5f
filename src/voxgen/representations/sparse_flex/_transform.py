"""Fewer cells, and cells of two fields together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_tensor
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.grid_sets import union
from voxgen.representations._crop import crop_grid

if TYPE_CHECKING:
    from ._fields import SparseFlex


def select(flex: SparseFlex, keep: Bool[Tensor, " n"]) -> SparseFlex:
    """The field on some of the cells. Their corners keep their values: nothing is averaged again.

    The surface ends where the cells do. To extract a part of a surface only, give `keep` to `to_mesh`.

    Args:
        keep: (n,) bool.
    Raises:
        ShapeError, DtypeError: keep of another shape or dtype.
    """
    require_tensor("SparseFlex.select", "keep", keep, (len(flex.grid),), (torch.bool,))
    return _on(flex, flex.grid.select(keep), keep)


def crop(flex: SparseFlex, low: Int3, high: Int3, *, rebase: bool = False) -> SparseFlex:
    """Keep the cells with low <= (x, y, z) < high; the surface ends half a cell before the cut.

    Args:
        low, high: cell indices; parts of the box outside the grid hold no cells.
        rebase: make `low` the new cell (0, 0, 0) and the box the new grid; the frame moves along, so world positions stay.
    Raises:
        RangeError: an empty box; with `rebase`, a box that is not inside the grid.
    """
    grid, keep = crop_grid("SparseFlex.crop", flex.grid, low, high, rebase)
    return _on(flex, grid, keep)


def merge(flex: SparseFlex, other: SparseFlex) -> SparseFlex:
    """The cells of both on one lattice; a corner or cell that both have takes the mean. Crops of one object give it back.

    It joins pieces; it is no union of solids: where two different surfaces share cells the mean is neither.

    Args:
        other: of the same resolution, batch size, frame and fields.
    Raises:
        RangeError: other resolution or batch size.   FrameError: other frame.   ShapeError: other fields.
    """
    from ._fields import PER_CORNER, SparseFlex, require_same_fields

    require_same_fields("SparseFlex.merge", (flex, other))
    grid = union(flex.grid, other.grid)
    cells = [grid.rows_of(item.coords) for item in (flex, other)]
    corners = [corner_rows(item.grid, grid, rows) for item, rows in zip((flex, other), cells, strict=True)]
    fields = {}
    for name, value in flex.tensors().items():
        first, second = corners if name in PER_CORNER else cells
        size = len(cube_corners(grid)) if name in PER_CORNER else len(grid)
        fields[name] = _mean(value, first, other.tensors()[name].to(value), second, size)
    return SparseFlex(grid, **fields)


def _on(flex: SparseFlex, grid: VoxelGrid, keep: Tensor) -> SparseFlex:
    """The rows `keep` on `grid`, which must be their cells."""
    from ._fields import PER_CORNER, SparseFlex

    corners = cube_corners(grid)
    rows = torch.zeros(len(corners), dtype=torch.int64, device=flex.device)
    rows[corners.index.long().flatten()] = flex.corners.index[keep].long().flatten()  # several write one row, all the same
    fields = {name: value.index_select(0, rows) if name in PER_CORNER else value[keep] for name, value in flex.tensors().items()}
    return SparseFlex(grid, **fields)


def corner_rows(part: VoxelGrid, whole: VoxelGrid, cells: Tensor) -> Tensor:
    """(m,) row in the whole's corners of each corner of a part whose cells are rows `cells` of the whole."""
    corners = cube_corners(part)
    rows = torch.zeros(len(corners), dtype=torch.int64, device=part.device)
    rows[corners.index.long().flatten()] = cube_corners(whole).index[cells].long().flatten()
    return rows


def _mean(a: Tensor, rows_a: Tensor, b: Tensor, rows_b: Tensor, size: int) -> Tensor:
    def ones(rows: Tensor) -> Tensor:
        return torch.ones(len(rows), dtype=a.dtype, device=a.device)

    count = a.new_zeros(size).index_add(0, rows_a, ones(rows_a)).index_add(0, rows_b, ones(rows_b))
    total = a.new_zeros(size, *a.shape[1:]).index_add(0, rows_a, a).index_add(0, rows_b, b)
    return total / count.reshape(-1, *[1] * (a.ndim - 1))
