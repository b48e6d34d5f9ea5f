"""What the pruning heads should have said."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.batching import batch_index
from voxgen.core.checks import describe, require_same_device
from voxgen.core.errors import DtypeError, RangeError
from voxgen.layers._point_voxels import clamped_places
from voxgen.ops.lookup import lookup_cells
from voxgen.representations import OrientedPoints

__all__ = ["occupied_children"]


def occupied_children(grid: VoxelGrid, cloud: OrientedPoints) -> Bool[Tensor, "n 8"]:
    """Which children of each cell a point lies in: the target of an upsampler's occupancy logits.

    Args:
        grid: (n cells) that enter the step: the latent's, then the children that stayed (`DecodedFlex.logits[i].grid`).
        cloud: points of as many samples; those in none of the cells count nowhere.
    Returns:
        (n, 8) bool, slot = x + 2y + 4z, as `DecodedFlex.logits` has its columns.
    Raises:
        DtypeError: not points.   RangeError: another number of samples.   DeviceError: elsewhere.
    Not differentiable. No points and no cells are legal.
    Source: Focusing, L_occ: the child cell contains a point of the input; TripoSF's release has no training.
    Example:
        >>> out, latent = vae(cloud, grid)                                # forward, which keeps all children
        >>> targets = [occupied_children(logits.grid, cloud) for logits in out.logits]
    """
    where = "occupied_children"
    if not isinstance(cloud, OrientedPoints):
        raise DtypeError(f"{where}: cloud must be OrientedPoints; got {describe(cloud)}.")
    require_same_device(where, grid=grid.coords, points=cloud.points)
    if cloud.batch_size != grid.batch_size:
        raise RangeError(f"{where}: cloud and grid must have one number of samples; got {cloud.batch_size} and {grid.batch_size}.")
    with torch.no_grad():
        halves = (2 * clamped_places(cloud.points, grid)).floor().int()
        rows = lookup_cells(grid, torch.cat([batch_index(cloud.offsets, torch.int32)[:, None], halves >> 1], 1)).long()
        x, y, z = (halves & 1).unbind(1)
        children = (8 * rows + x + 2 * y + 4 * z)[rows >= 0]
        result = torch.zeros(8 * len(grid), dtype=torch.bool, device=grid.device)
        result[children] = True
    return result.view(-1, 8)
