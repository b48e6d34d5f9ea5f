"""Neighbour tables compiled for the CPU."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._numba import arrays, search_block

from ._key import NeighborKey

CHUNK = 1024
"""Outputs that one thread takes at a time."""


def find_rows(grid: VoxelGrid, outputs: VoxelGrid, key: NeighborKey) -> Tensor:
    """See `neighbor_table`."""
    table = torch.empty((len(outputs), key.volume), dtype=torch.int32)
    if table.numel():
        footprint = np.array([key.kernel_size, key.dilation, key.stride, key.padding], dtype=np.int64)
        index = arrays(block_index(grid, backend="numba"))
        _fill(*index, outputs.coords.numpy(), footprint, key.transposed, table.numpy())
    return table


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill(table, blocks, leaves, nx, ny, nz, batch, coords, footprint, transposed, rows):  # pyright: ignore
    for part in prange((len(coords) + CHUNK - 1) // CHUNK):
        # what the partner cells of one output have along each axis: their share of the block's address, and of the place in it
        # (unsigned, because numba guards signed indices against being negative)
        block = np.empty((3, footprint[0].max()), dtype=np.uint64)
        place = np.empty((3, footprint[0].max()), dtype=np.uint64)
        for i in range(part * CHUNK, min(len(coords), (part + 1) * CHUNK)):
            _along_axis(coords[i, 1], 0, nx, ny * nz, 6, footprint, transposed, block, place)
            _along_axis(coords[i, 2], 1, ny, nz, 3, footprint, transposed, block, place)
            _along_axis(coords[i, 3], 2, nz, 1, 0, footprint, transposed, block, place)
            sample = np.uint64(np.int64(coords[i, 0]) * nx * ny * nz)
            line_of_rows = rows[i]
            column = np.uint64(0)
            for a in range(footprint[0, 0]):
                for b in range(footprint[0, 1]):
                    line = sample + block[0, a] + block[1, b]
                    spot = place[0, a] + place[1, b]
                    for c in range(footprint[0, 2]):
                        address = line + block[2, c]
                        leaf = np.uint64(table[address]) if len(table) > 0 else np.uint64(search_block(blocks, np.int64(address)))
                        line_of_rows[column] = leaves[(leaf << np.uint64(9)) + spot + place[2, c]]
                        column += np.uint64(1)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _along_axis(v, axis, counts, step, bits, footprint, transposed, block, place):  # pyright: ignore
    for k in range(footprint[0, axis]):
        shift = footprint[1, axis] * k - footprint[3, axis]
        stride = footprint[2, axis]
        if transposed:
            partner = (v - shift) // stride
            here = (partner >> 3) + 1 if partner * stride == v - shift else 0
        else:
            partner = v * stride + shift
            here = (partner >> 3) + 1
        block[axis, k] = min(max(here, 0), counts - 1) * step  # the outermost blocks are guards: nothing is in them
        place[axis, k] = (partner & 7) << bits
