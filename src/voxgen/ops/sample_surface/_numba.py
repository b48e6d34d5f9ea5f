"""The face of each sample, compiled: a guide table gives where to begin, so that no search is needed."""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor


def faces_at(ends: Tensor, along: Tensor) -> Tensor:
    """`torch.searchsorted(ends, along, right=True)` for ascending `ends` (f,) and any `along` (n,) in [0, ends[-1]), float64."""
    found = np.empty(len(along), np.int64)
    _look_up(ends.numpy(), _guide(ends.numpy()), along.numpy(), get_num_threads(), found)
    return torch.from_numpy(found)


@njit(cache=True, nogil=True, error_model="numpy")
def _guide(ends):
    """Entry j: the first face that ends beyond share j / f of the whole."""
    count = len(ends)
    guide = np.empty(count + 1, np.int64)
    face = 0
    for j in range(count + 1):
        while face < count - 1 and ends[face] <= ends[count - 1] * j / count:
            face += 1
        guide[j] = face
    return guide


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _look_up(ends, guide, along, workers, found):
    count, total = len(ends), ends[-1]
    for worker in prange(workers):
        for i in range(worker * len(along) // workers, (worker + 1) * len(along) // workers):
            face = guide[min(max(int(along[i] / total * count), 0), count)]
            while face > 0 and ends[face - 1] > along[i]:
                face -= 1
            while face < count and ends[face] <= along[i]:
                face += 1
            found[i] = face
