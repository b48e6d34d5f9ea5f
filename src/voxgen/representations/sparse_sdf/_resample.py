"""Change of resolution, by trilinear interpolation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import RangeError
from voxgen.ops.distance_band import require_band
from voxgen.ops.grid_sets import dilate
from voxgen.ops.sample import sample_trilinear

from ._far import sdf_at

if TYPE_CHECKING:
    from ._fields import SparseSDF

CHUNK = 1 << 19
"""Cells of the old grid whose new ones are made in one piece."""
EDGE = 1e-6
"""Values within this share of the old band count as far: interpolation of far values rounds."""


def resample(sdf: SparseSDF, resolution: int | Int3, band: float | None = None) -> SparseSDF:
    """The same surface at another resolution, in the same box: the truncated volume, interpolated at the new cell centres.

    Args:
        resolution: cells an axis, one number or three in the proportion of the old ones.
        band: of the result, in its cells; None keeps the width in world units, as the training of Direct3D-S2 does. It cannot be
            wider than that.
    Returns:
        SparseSDF with the cells that are nearer than the band. Differentiable in the distances.
    Raises:
        RangeError: other proportions, or a band wider than the data.
    Numerics: exact where the distance is linear. Far cells enter with ± the band, as in a dense truncated volume.
    Source: Direct3D-S2, multi-resolution training: 256³, 384³ and 512³ from one volume, |sdf| < 1/128.
    """
    where = "SparseSDF.resample"
    new = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    scale = sdf.resolution[0] / new[0]
    if any(old * new[0] != size * sdf.resolution[0] for old, size in zip(sdf.resolution, new, strict=True)):
        raise RangeError(f"{where}: resolution must be in the proportion of {sdf.resolution}, so that cells stay cubes; got {new}.")
    reach = sdf.band / scale if band is None else require_band(where, "band", band)
    if reach * scale > sdf.band * (1 + EDGE):
        raise RangeError(f"{where}: band must be at most {sdf.band / scale:g} cells of the new size, which is what is stored; got {band}.")
    frame = Frame.box(*sdf.frame.bounds(sdf.resolution), new, sdf.frame.up)
    wide = dilate(sdf.grid)  # around each stored cell all eight taps exist now
    values = sdf_at(sdf, wide.coords)
    values = values if values.dtype == torch.float64 else values.float()
    coords, found = [sdf.coords[:0]], [values[:0]]
    limit = min(reach * scale, sdf.band * (1 - EDGE))
    for part in wide.coords.split(CHUNK):
        candidates = _centres_in(part, scale, new)
        points = (candidates[:, 1:].double() + 0.5) * scale
        sampled = sample_trilinear(values, wide, points, candidates[:, 0].contiguous())
        keep = sampled.detach()[:, 0].abs() < limit
        coords.append(candidates[keep])
        found.append(sampled[keep])
    keys, order = pack_keys(torch.cat(coords)).sort()
    grid = VoxelGrid.from_sorted(unpack_keys(keys), resolution=new, batch_size=sdf.batch_size, frame=frame)
    return sdf.replace(grid=grid, sdf_cells=(torch.cat(found)[order] / scale).to(sdf.dtype), band=reach)


def _centres_in(cells: Tensor, scale: float, resolution: Int3) -> Tensor:
    """The cells of the new grid whose centre lies in one of the old cells (n, 4), each once."""
    first = torch.ceil(cells[:, 1:].double() / scale - 0.5).int()
    count = math.ceil(1 / scale)
    steps = torch.cartesian_prod(*[torch.arange(count, dtype=torch.int32, device=cells.device)] * 3).reshape(-1, 3)
    new = first[:, None] + steps
    center = (new.double() + 0.5) * scale
    low = cells[:, None, 1:]
    limits = torch.tensor(resolution, device=cells.device)
    inside = ((center >= low) & (center < low + 1) & (new < limits)).all(2)
    batch = cells[:, :1, None].expand(-1, new.shape[1], -1)
    return torch.cat((batch, new), 2)[inside]
