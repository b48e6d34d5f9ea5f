"""The definition: all 27 moved copies of every point."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core import Frame
from voxgen.core.aliases import Int3
from voxgen.core.coords import pack_keys, unpack_keys

CHUNK = 1 << 18
"""Points at a time."""


def point_cells(points: Tensor, batch: Tensor, batch_size: int, frame: Frame, resolution: Int3, skin: float, inset: float) -> Tensor:
    """See `voxgen.ops.point_cells.point_cells`; (n, 4) int32 in lexicographic order."""
    origin, size = (torch.tensor(v, dtype=torch.float64, device=points.device) for v in (frame.origin, frame.voxel_size))
    cells = torch.tensor(resolution, dtype=torch.float64, device=points.device)
    side = size * cells
    step = torch.arange(-1, 2, dtype=torch.float64, device=points.device)
    moves = torch.cartesian_prod(step, step, step) * (skin * size) if skin > 0 else torch.zeros(1, 3, dtype=torch.float64).to(points.device)
    found = [pack_keys(torch.zeros(0, 4, dtype=torch.int32, device=points.device))]
    for some, sample in zip(points.split(CHUNK), batch.split(CHUNK), strict=True):
        moved = some.double()[:, None] + moves
        kept = torch.minimum(torch.maximum(moved, origin + inset * side), origin + (1 - inset) * side)
        cell = ((kept - origin) / side * cells).floor()
        cell = torch.minimum(cell.clamp(min=0), cells - 1).int()
        coords = torch.cat((sample[:, None, None].expand(-1, len(moves), 1), cell), 2)
        found.append(pack_keys(coords.reshape(-1, 4)).unique())
    return unpack_keys(torch.cat(found).unique())
