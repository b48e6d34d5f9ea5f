"""Vectorised, on any device: cubes in pieces, then one table look-up for all that are cut."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import BlockIndex, block_index
from voxgen.ops.lookup._torch import rows_near

from ._table import CORNERS, EDGES, FACES, table

CHUNK = 1 << 18
"""Cubes looked at in one piece."""


def topology(grid: VoxelGrid, values: Tensor) -> tuple[Tensor, Tensor]:
    """See `_surface.Topology`."""
    if len(grid) == 0:
        none = torch.zeros(0, dtype=torch.int32, device=grid.device)
        return none.reshape(0, 2), none.reshape(0, 3)
    index = block_index(grid, backend="torch")
    parts = [_cut_cubes(index, coords, values) for coords in grid.coords.split(CHUNK)]
    rows, code = (torch.cat(part) for part in zip(*parts, strict=True))
    return _join(rows, code)


def _cut_cubes(index: BlockIndex, coords: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Cubes that the surface passes: rows of their corners (m, 8), and 64 · case + decisions."""
    b, x, y, z = coords.unbind(1)
    rows = torch.stack([rows_near(index, b, x + i, y + j, z + k) for i, j, k in CORNERS], 1)
    rows = rows[(rows >= 0).all(1)]
    at = values[rows.long()]
    case = _bits(at < 0)
    cut = (case != 0) & (case != 255)
    rows, at, case = rows[cut], at[cut], case[cut]
    ambiguous = torch.from_numpy(table().ambiguous).to(case.device).long()[case]
    faces = torch.tensor(FACES, device=case.device)
    a, b, c, d = at[:, faces].unbind(2)
    first, second = a * c, b * d
    joined = torch.where(a < 0, first > second, second > first)
    return rows, 64 * case + (_bits(joined) & ambiguous)


def _bits(flags: Tensor) -> Tensor:
    return (flags.long() << torch.arange(flags.shape[1], device=flags.device)).sum(1)


def _join(rows: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Number the crossed edges, and fill in the triangles of the table."""
    device = rows.device
    ends = torch.tensor(EDGES, device=device)
    starts, triangles = torch.from_numpy(table().starts).to(device).long(), torch.from_numpy(table().triangles).to(device).long()
    low, high = rows[:, ends[:, 0]].long(), rows[:, ends[:, 1]]
    case = code >> 6
    crossed = ((case[:, None] >> ends[:, 0]) ^ (case[:, None] >> ends[:, 1])) & 1 == 1
    axis = torch.arange(12, device=device) // 4
    keys, number = (3 * low + axis)[crossed].unique(return_inverse=True)
    upper = torch.empty_like(keys, dtype=torch.int32)
    upper[number] = high[crossed]  # the same whoever of the cubes around the edge writes it
    vertex = torch.full(crossed.shape, -1, device=device)
    vertex[crossed] = number

    counts = starts[code + 1] - starts[code]
    cube = torch.arange(len(code), device=device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    entry = (starts[code] - before)[cube] + torch.arange(len(cube), device=device)
    faces = vertex[cube[:, None], triangles[entry]]
    return torch.stack(((keys // 3).int(), upper), 1), faces.int()
