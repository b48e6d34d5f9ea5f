"""Compiled CPU engine: threads take pieces of segments, then pieces of the pieces, and so on."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

PIECE = 256
"""Rows of a piece: enough work for a thread's turn, few enough that their sum in sequence is exact to a few units."""
CODE = {"sum": 0, "max": 1, "min": 2}


def reduce(values: Tensor, offsets: Tensor, how: str) -> Tensor:
    """(n, c) float32 or float64 to (b, c), 0 for empty segments."""
    rows, bounds = values.contiguous().numpy(), offsets.contiguous().numpy()
    while np.diff(bounds).max() > PIECE:
        starts, bounds = _cut(bounds)
        rows = _reduce_all(rows, starts, CODE[how])
    return torch.from_numpy(_reduce_all(rows, bounds, CODE[how]))


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(offsets):  # pyright: ignore
    """Where each piece starts, and which is the first of each segment; both with an end. Pieces start at their segment."""
    first = np.zeros(len(offsets), dtype=np.int64)
    for s in range(len(offsets) - 1):
        first[s + 1] = first[s] + (offsets[s + 1] - offsets[s] + PIECE - 1) // PIECE
    starts = np.empty(first[-1] + 1, dtype=np.int64)
    for s in range(len(offsets) - 1):
        for k in range(first[s], first[s + 1]):
            starts[k] = offsets[s] + (k - first[s]) * PIECE
    starts[first[-1]] = offsets[-1]
    return starts, first


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _reduce_all(values, starts, how):  # pyright: ignore
    channels = values.shape[1]
    out = np.empty((len(starts) - 1, channels), dtype=values.dtype)
    for s in prange(len(out)):
        start, end = starts[s], starts[s + 1]
        for c in range(channels):
            out[s, c] = values[start, c] if end > start else 0
        for i in range(start + 1, end):
            if how == 0:
                for c in range(channels):
                    out[s, c] += values[i, c]
            elif how == 1:
                for c in range(channels):
                    v = values[i, c]
                    out[s, c] = v if v > out[s, c] or v != v else out[s, c]
            else:
                for c in range(channels):
                    v = values[i, c]
                    out[s, c] = v if v < out[s, c] or v != v else out[s, c]
    return out
