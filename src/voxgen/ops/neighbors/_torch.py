"""Neighbour tables with plain torch operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import BlockIndex, block_index

from ._key import NeighborKey

CHUNK = 1 << 16
"""Outputs at once on a CPU, so that what is computed for one of them stays in its cache."""
SMALL_STRIDE = 1 << 14
"""Up to here the place of any output times the stride, plus any footprint, fits in int32."""


def find_rows(grid: VoxelGrid, outputs: VoxelGrid, key: NeighborKey) -> Tensor:
    """See `neighbor_table`."""
    table = torch.empty((len(outputs), key.volume), dtype=torch.int32, device=grid.device)
    if table.numel() == 0:
        return table
    index = block_index(grid, backend="torch")
    step = CHUNK if grid.device.type == "cpu" else len(outputs)
    for cells, rows in zip(outputs.coords.split(step), table.split(step), strict=True):
        _fill(index, cells, key, rows)
    return table


def _fill(index: BlockIndex, coords: Tensor, key: NeighborKey, rows: Tensor) -> None:
    """Write the table's rows for some outputs. Blocks and places of cells are sums over axes, so they are found axis by axis."""
    nx, ny, nz = index.counts
    batch = coords[:, 0].long() * nx
    axes = [_axis(coords[:, 1 + a], a, key, index.counts[a]) for a in range(3)]
    x_axis = [((batch + block) * (ny * nz), place << 6) for block, place in axes[0]]
    y_axis = [(block.long() * nz, place << 3) for block, place in axes[1]]
    z_axis = [(block.long(), place) for block, place in axes[2]]
    column = 0
    for x_block, x_place in x_axis:
        for y_block, y_place in y_axis:
            block, place = x_block + y_block, x_place | y_place
            for z_block, z_place in z_axis:
                leaf = _leaf(index, block + z_block)
                rows[:, column] = index.leaves.index_select(0, (leaf << 9).add_(place).add_(z_place))
                column += 1


def _axis(place: Tensor, axis: int, key: NeighborKey, blocks: int) -> list[tuple[Tensor, Tensor]]:
    """For each offset along an axis: the block of the partner cell (0, a guard block, where there is none) and its place therein."""
    d, s, p = key.dilation[axis], key.stride[axis], key.padding[axis]
    if s > SMALL_STRIDE:
        place = place.long()
    found = []
    for k in range(key.kernel_size[axis]):
        if key.transposed:
            back = place + (p - d * k)
            partner = back.div(s, rounding_mode="floor")
            block = torch.where(back % s == 0, ((partner >> 3) + 1).clamp_(0, blocks - 1), 0)
        else:
            partner = place * s + (d * k - p)
            block = ((partner >> 3) + 1).clamp_(0, blocks - 1)
        found.append((block, partner & 7))
    return found


def _leaf(index: BlockIndex, address: Tensor) -> Tensor:
    if index.table is not None:
        return index.table.index_select(0, address).long()
    position = torch.searchsorted(index.blocks, address).clamp_(max=index.num_blocks - 1)
    return torch.where(index.blocks[position] == address, position + 1, 0)
