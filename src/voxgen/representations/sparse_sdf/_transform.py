"""Crop and merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.ops.grid_sets import union
from voxgen.representations._crop import crop_grid

from ._far import sdf_at

if TYPE_CHECKING:
    from ._fields import SparseSDF


def crop(sdf: SparseSDF, low: Int3, high: Int3, *, rebase: bool = False) -> SparseSDF:
    """Keep the cells with low <= (x, y, z) < high.

    Args:
        low, high: cell indices; parts of the box outside the grid hold no cells.
        rebase: make `low` the new cell (0, 0, 0) and the box the new grid; the frame moves along, so world positions stay.
    Raises:
        RangeError: an empty box; with `rebase`, a box that is not inside the grid.
    """
    grid, keep = crop_grid("SparseSDF.crop", sdf.grid, low, high, rebase)
    return sdf.replace(grid=grid, sdf_cells=sdf.sdf_cells[keep])


def merge(sdf: SparseSDF, other: SparseSDF, how: Literal["union", "intersection", "difference"] = "union") -> SparseSDF:
    """Combine two solids on one lattice: both together, what they share, or the first without the second.

    Distances are the smaller, the larger, or the larger of the first and the negated second; cells that are farther than the band
    from the result are dropped. As always with these rules, distances near places where both surfaces meet are bounds: exact
    outside of a union and inside of an intersection.

    Args:
        other: of the same resolution, batch size, frame and band.
        how: "union", "intersection" or "difference". Unsigned SDFs have a union only: the distance to either surface.
    Returns:
        A new SparseSDF. Differentiable in both.
    Raises:
        RangeError: other resolution, batch size or band, or unsigned.   FrameError: other frame.
    """
    from ._fields import require_alike

    where = "SparseSDF.merge"
    require_choice(where, "how", how, ("union", "intersection", "difference"))
    require_alike(where, (sdf, other))
    if not sdf.signed and how != "union":
        raise RangeError(f"{where}: {how!r} needs signed distances; these are unsigned.")
    grid = union(sdf.grid, other.grid)
    a, b = sdf_at(sdf, grid.coords), sdf_at(other, grid.coords).to(sdf.dtype)
    values = torch.minimum(a, b) if how == "union" else torch.maximum(a, b if how == "intersection" else -b)
    keep = values.detach()[:, 0].abs() < sdf.band
    return sdf.replace(grid=grid.select(keep), sdf_cells=values[keep])
