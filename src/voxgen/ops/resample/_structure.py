"""Structure: two neighbouring levels of a hierarchy of grids, said explicitly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3, require_same_device
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import CapacityError, EmptyResultWarning, RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops.grid_sets import ChildOrder, child_offsets, parent_rows, parents
from voxgen.ops.grid_sets._levels import refine
from voxgen.ops.lookup import MAX_ROWS, lookup_cells

from ._links import Links


@dataclass(frozen=True, eq=False)
class Structure:
    """A coarse grid, a finer one, and which cell of the one is whose child in the other.

    What an encoder's downsampling leaves behind and a decoder's upsampling needs. Nothing finds it by itself: whoever
    needs the structure of another level is given it.

    Make one with `Structure.of_children` (down), `Structure.of_mask` (up) or `Structure.between` (both are known).

    Attributes:
        parents: (p cells) the coarse grid; it may have cells without a child.
        children: (n cells) the fine grid; each of its cells has a parent.
        factor: children along each axis.
        links: rows and lists, private to the ops.
    Example:
        >>> down = Structure.of_children(grid)
        >>> coarse = pool(feats, down)              # (p, c), rows of down.parents
        >>> fine = subdivide(coarse, down)          # (n, c), rows of grid again
    """

    parents: VoxelGrid
    children: VoxelGrid
    factor: Int3
    links: Links

    @staticmethod
    def of_children(children: VoxelGrid, factor: int | Int3 = 2) -> Structure:
        """The level above a grid: its parents are `grid_sets.parents(children, factor)`. Its lists are kept on `children`.

        Raises:
            RangeError: a factor below 1.   CapacityError: 2³¹ cells or more, because rows are int32.
        """
        f = require_int3("Structure.of_children", "factor", factor, 1, MAX_RESOLUTION)
        coarse, rows = parents(children, f), parent_rows(children, f)
        links = children.cached(("structure", f), lambda: _links(children, rows, len(coarse), f))
        return Structure(coarse, children, f, links)

    @staticmethod
    def of_mask(
        parents: VoxelGrid, mask: Bool[Tensor, "p s"] | None = None, factor: int | Int3 = 2, *, order: ChildOrder = "x_fastest"
    ) -> Structure:
        """The level below a grid: all children of its cells, or those that a mask keeps.

        Args:
            parents: (p cells) the coarse grid.
            mask: (p, fx·fy·fz) bool, one column a child in the given order; None keeps all.
            factor: children along each axis.
            order: which column is which child; "x_fastest" is slot = x + 2y + 4z.
        Raises:
            ShapeError, DtypeError: the mask is not (p, fx·fy·fz) bool.   RangeError: a factor below 1, or a resolution
            that would exceed 65,536.   DeviceError: mask and grid on different devices.   CapacityError: 2³¹ children or
            more, or more than memory holds.
        Warns:
            EmptyResultWarning: there are cells and the mask keeps no child of any.
        """
        where = "Structure.of_mask"
        f = require_int3(where, "factor", factor, 1, MAX_RESOLUTION)
        fine, rows, places = refine(where, parents, mask, f, order)
        if len(fine) == 0 and len(parents) > 0:
            warnings.warn(f"{where}: the mask keeps no child of any of {len(parents)} cells.", EmptyResultWarning, stacklevel=2)
        return Structure(parents, fine, f, Links(rows, _slots(places, f), len(parents), f[0] * f[1] * f[2]))

    @staticmethod
    def between(parents: VoxelGrid, children: VoxelGrid, factor: int | Int3 = 2) -> Structure:
        """Two grids that are there already.

        Raises:
            RangeError: different batch sizes, a cell of `children` without a parent, or a factor below 1.
            FrameError: the frames do not fit the factor.   DeviceError: grids on different devices.
            CapacityError: 2³¹ cells or more.
        """
        where = "Structure.between"
        f = require_int3(where, "factor", factor, 1, MAX_RESOLUTION)
        require_same_device(where, parents=parents.coords, children=children.coords)
        if parents.batch_size != children.batch_size:
            raise RangeError(f"{where}: both grids must have one batch_size; got {parents.batch_size} and {children.batch_size}.")
        children.frame.coarsen(f).require_close(where, parents.frame)
        if len(children) > MAX_ROWS:
            raise CapacityError(f"{where}: rows are int32, so a grid may have at most {MAX_ROWS} cells; children has {len(children)}.")
        divisor = torch.tensor([1, *f], dtype=torch.int32, device=children.device)
        rows = lookup_cells(parents, children.coords // divisor)
        orphans = rows < 0
        if bool(orphans.any()):
            cell = children.coords[orphans][0].tolist()
            raise RangeError(
                f"{where}: each cell of children must have its parent in parents; {int(orphans.sum())} of {len(children)} have "
                f"none, the first is [batch, x, y, z] = {cell} at factor {f}."
            )
        return Structure(parents, children, f, _links(children, rows, len(parents), f))

    @property
    def num_slots(self) -> int:
        """Children that a parent can have."""
        return self.links.num_slots

    @property
    def parent(self) -> Int32[Tensor, " n"]:
        """(n,) int32 row of each child's parent."""
        return self.links.parent

    @property
    def slot(self) -> Int32[Tensor, " n"]:
        """(n,) int32 number of each child among its parent's: x + fx·y + fx·fy·z."""
        return self.links.slot

    @property
    def table(self) -> Int32[Tensor, "p s"]:
        """(p, s) int32 child rows by slot, -1 where there is no child."""
        return self.links.table

    def mask(self, order: ChildOrder = "x_fastest") -> Bool[Tensor, "p s"]:
        """(p, s) bool: which children each parent has. The target of a subdivision predictor."""
        return (self.table >= 0)[:, slot_order(self.factor, order, self.table.device)]


def slot_order(factor: Int3, order: ChildOrder, device: torch.device | str = "cpu") -> Tensor:
    """(s,) int64: the slot (x fastest) that comes first, second, … in the given order."""
    return _slots(child_offsets(factor, order, device), factor).long()


def _links(children: VoxelGrid, rows: Tensor, num_parents: int, factor: Int3) -> Links:
    places = children.cells % torch.tensor(factor, dtype=torch.int32, device=children.device)
    return Links(rows, _slots(places, factor), num_parents, factor[0] * factor[1] * factor[2])


def _slots(places: Tensor, factor: Int3) -> Tensor:
    x, y, z = places.unbind(1)
    return x + factor[0] * (y + factor[1] * z)
