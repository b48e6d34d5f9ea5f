"""Values at any cell: those that are stored, and for the far ones the band with the sign of their side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Coords
from voxgen.core.checks import require_same_device
from voxgen.core.coords import AXIS_BITS, check_coords, pack_keys
from voxgen.ops.lookup import lookup_cells

if TYPE_CHECKING:
    from ._fields import SparseSDF


def sdf_at(sdf: SparseSDF, coords: Coords) -> Float[Tensor, "m 1"]:
    """Distances in cells at any cells of the grid, within ± the band.

    A far cell is outside if no stored cell lies above it in its lattice column along z, else on the side of the next one above:
    between the two the surface cannot pass, for it is nowhere farther than the band from a stored cell on either side. This is
    the far field that a decoder's extra voxels are trained towards.

    Args:
        coords: (m, 4) int32 [batch, x, y, z] inside the grid, any order.
    Returns:
        (m, 1) in the dtype of the SDF. Differentiable in stored distances; far cells are constant.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: coords of a wrong kind, or outside the grid.
    Limits: after `crop` the sign of far cells below the cut is that of the outside. Open surfaces have no inside far from them.
    Source: none; the original fills the far field with +1, inside too, which gives solids a second surface within.
    """
    check_coords("SparseSDF.sdf_at", coords, sdf.resolution, sdf.batch_size)
    require_same_device("SparseSDF.sdf_at", sdf=sdf.coords, coords=coords)
    if len(sdf) == 0:
        return sdf.sdf_cells.new_full((len(coords), 1), sdf.band)
    rows = lookup_cells(sdf.grid, coords).long()
    stored = sdf.sdf_cells[rows.clamp_min(0), 0].clamp(-sdf.band, sdf.band)
    far = torch.full_like(stored, sdf.band)
    if sdf.signed:
        keys = pack_keys(coords)
        above = torch.searchsorted(sdf.grid.keys, keys).clamp_max(len(sdf) - 1)
        next_key = sdf.grid.keys[above]
        same_column = (next_key >> AXIS_BITS == keys >> AXIS_BITS) & (next_key > keys)
        far = torch.where(same_column & (sdf.sdf_cells.detach()[above, 0] < 0), -far, far)
    return torch.where(rows >= 0, stored, far)[:, None]


def dense(sdf: SparseSDF) -> Float[Tensor, "b x y z"]:
    """The whole volume in cells, far field included. For small grids: memory grows with the cube."""
    axes = [torch.arange(n, dtype=torch.int32, device=sdf.device) for n in (sdf.batch_size, *sdf.resolution)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 4)
    return sdf_at(sdf, coords).view(sdf.batch_size, *sdf.resolution)
