"""Sums at corners over a table of the cells around each, and spreading to cells, compiled for the CPU; threads own rows of the result."""

from __future__ import annotations

import torch
from numba import njit, prange
from torch import Tensor

from ._corners import CubeCorners


def sum_at_corners(values: Tensor, corners: CubeCorners) -> Tensor:
    """See `_reference.sum_at_corners`."""
    cells = corners.cached("cells", lambda: cells_around(corners))
    total = values.new_empty(len(corners), values.shape[2])
    _sum(values.numpy(), cells.numpy(), total.numpy())
    return total


def spread(values: Tensor, corners: CubeCorners) -> Tensor:
    """See `_reference.spread`."""
    result = values.new_empty(len(corners.index), 8, values.shape[1])
    _spread(values.numpy(), corners.index.numpy(), result.numpy())
    return result


def cells_around(corners: CubeCorners) -> Tensor:
    """See `_torch.cells_around`."""
    cells = torch.empty((len(corners), 8), dtype=torch.int32)
    _around(corners.index.numpy(), cells.numpy())
    return cells


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _around(index, cells):  # pyright: ignore
    for i in prange(len(cells)):
        cells[i] = -1
    for i in prange(len(index)):
        for k in range(8):
            cells[index[i, k], k] = i


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _sum(values, cells, total):  # pyright: ignore
    for i in prange(len(total)):
        for c in range(total.shape[1]):
            total[i, c] = 0
        for k in range(8):
            row = cells[i, k]
            if row >= 0:
                for c in range(total.shape[1]):
                    total[i, c] += values[row, k, c]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _spread(values, index, result):  # pyright: ignore
    for i in prange(len(index)):
        for k in range(8):
            row = index[i, k]
            for c in range(values.shape[1]):
                result[i, k, c] = values[row, c]
