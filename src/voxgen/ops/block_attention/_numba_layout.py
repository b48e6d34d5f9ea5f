"""Keys and values as the register tiles of compiled engines take them: block by block, in panels of a tile's width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.ops.conv._tile import LANES, WIDTH

from ._lists import Lists


class Layout(NamedTuple):
    """Places of keys. Each block is filled up with zeros to a multiple of LANES.

    starts: (m + 1,) int32 where each block begins in `Lists.keys`.
    padded: (m + 1,) int64 where it begins among the filled-up keys.
    place: (l,) int64 filled-up position of each listed key.
    block: (l,) int64 block of each listed key.
    keys: (l,) int32 rows of k.
    """

    starts: np.ndarray
    padded: np.ndarray
    place: np.ndarray
    block: np.ndarray
    keys: np.ndarray

    @property
    def size(self) -> int:
        """Filled-up keys of all blocks."""
        return int(self.padded[-1])


def layout_of(lists: Lists) -> Layout:
    starts = lists.starts.long()
    counts = starts.diff()
    padded = torch.nn.functional.pad(((counts + LANES - 1) // LANES * LANES).cumsum(0), (1, 0))
    block = torch.repeat_interleave(counts)
    place = torch.arange(len(block)) + (padded - starts)[block]
    return Layout(lists.starts.contiguous().numpy(), padded.numpy(), place.numpy(), block.numpy(), lists.keys.contiguous().numpy())


def lying(rows: Tensor, layout: Layout) -> np.ndarray:
    """(Hk, size · d) panels of transposed keys: those of a block from column c on at (padded + c) · d, (d, width) each."""
    _, heads, width = rows.shape
    out = torch.zeros(heads, layout.size * width)
    if len(layout.keys):
        _lay(rows.float().contiguous().numpy(), layout.keys, layout.block, layout.padded, layout.place, out.numpy())
    return out.numpy()


def standing(rows: Tensor, layout: Layout) -> np.ndarray:
    """(Hk, size · padded d) panels of channels: channels from c on at c · size, (size, width) each."""
    _, heads, width = rows.shape
    wide = -(-width // LANES) * LANES
    out = torch.zeros(heads, layout.size * wide)
    if len(layout.keys):
        _stand(rows.float().contiguous().numpy(), layout.keys, layout.place, layout.size, wide, out.numpy())
    return out.numpy()


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def panel_of(column, columns):  # pyright: ignore
    """Where the panel begins that a column is in, and its width: WIDTH while there are so many, then LANES."""
    full = columns // WIDTH * WIDTH
    if column < full:
        return column // WIDTH * WIDTH, WIDTH
    return full + (column - full) // LANES * LANES, LANES


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _lay(rows, keys, block, padded, place, out):  # pyright: ignore
    heads, width = rows.shape[1], rows.shape[2]
    for i in prange(len(keys)):
        start = padded[block[i]]
        column = place[i] - start
        left, panel = panel_of(column, padded[block[i] + 1] - start)
        for g in range(heads):
            for j in range(width):
                out[g, (start + left) * width + j * panel + column - left] = rows[keys[i], g, j]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _stand(rows, keys, place, size, wide, out):  # pyright: ignore
    heads, width = rows.shape[1], rows.shape[2]
    for i in prange(len(keys)):
        for g in range(heads):
            for j in range(width):
                left, panel = panel_of(j, wide)
                out[g, left * size + place[i] * panel + j - left] = rows[keys[i], g, j]
