"""Which Gaussians touch each tile of the image, from near to far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

TILE = 16
"""Side of a tile in pixels. Tiles are work lists only: they never change a result."""


def tile_lists(box: Any, order: Any, tiles_x: int, tiles_y: int) -> tuple[Any, Any, Any]:
    """Box (n, 4) and the seen Gaussians from near to far → bounds (tiles + 1,), Gaussian (p,), and its slot (p,).

    Slots number the pairs of Gaussian and tile in the order of Gaussians, so that the pairs of Gaussian order[k] are slots
    of one run; the start of that run is `slot_starts(box)[order[k]]`.
    """
    chunk = max(4096, -(-len(order) // 64))
    counts = np.zeros((tiles_x * tiles_y, -(-len(order) // chunk)), np.int64)
    _count(box, order, chunk, tiles_x, counts)
    ends = np.cumsum(counts).reshape(counts.shape)
    total = int(ends[-1, -1])
    gaussian, slot = np.empty(total, np.int32), np.empty(total, np.int64)
    _fill(box, order, slot_starts(box), chunk, tiles_x, ends - counts, gaussian, slot)
    return np.concatenate((np.zeros(1, np.int64), ends[:, -1])), gaussian, slot


@njit(cache=True, nogil=True, error_model="numpy")
def slot_starts(box):
    """(n + 1,) first slot of each Gaussian."""
    starts = np.zeros(len(box) + 1, np.int64)
    for i in range(len(box)):
        tiles = 0
        if box[i, 1] >= box[i, 0] and box[i, 3] >= box[i, 2]:
            tiles = (box[i, 1] // TILE - box[i, 0] // TILE + 1) * (box[i, 3] // TILE - box[i, 2] // TILE + 1)
        starts[i + 1] = starts[i] + tiles
    return starts


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(box, order, chunk, tiles_x, counts):
    for c in prange(counts.shape[1]):
        for k in range(c * chunk, min((c + 1) * chunk, len(order))):
            i = order[k]
            for y in range(box[i, 2] // TILE, box[i, 3] // TILE + 1):
                for x in range(box[i, 0] // TILE, box[i, 1] // TILE + 1):
                    counts[y * tiles_x + x, c] += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill(box, order, starts, chunk, tiles_x, first, gaussian, slot):
    for c in prange(first.shape[1]):
        place = first[:, c].copy()
        for k in range(c * chunk, min((c + 1) * chunk, len(order))):
            i = order[k]
            s = starts[i]
            for y in range(box[i, 2] // TILE, box[i, 3] // TILE + 1):
                for x in range(box[i, 0] // TILE, box[i, 1] // TILE + 1):
                    p = place[y * tiles_x + x]
                    place[y * tiles_x + x] += 1
                    gaussian[p] = i
                    slot[p] = s
                    s += 1
