"""The definition: a dictionary of the input cells, asked once for each output and offset."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._key import NeighborKey


def find_rows(grid: VoxelGrid, outputs: VoxelGrid, key: NeighborKey) -> Tensor:
    """See `neighbor_table`."""
    row_of = {tuple(cell): row for row, cell in enumerate(grid.coords.tolist())}
    offsets = list(itertools.product(*(range(k) for k in key.kernel_size)))
    table = [[row_of.get(_partner(cell, offset, key), -1) for offset in offsets] for cell in outputs.coords.tolist()]
    return torch.tensor(table, dtype=torch.int32, device=grid.device).reshape(len(outputs), key.volume)


def _partner(cell: list[int], offset: tuple[int, ...], key: NeighborKey) -> tuple[int, ...]:
    """The input cell that belongs to an output cell; one that cannot exist where there is none."""
    batch, *place = cell
    found = []
    for v, k, d, s, p in zip(place, offset, key.dilation, key.stride, key.padding, strict=True):
        if key.transposed:
            back = v + p - d * k
            found.append(back // s if back % s == 0 else -1)
        else:
            found.append(s * v - p + d * k)
    return (batch, *found)
