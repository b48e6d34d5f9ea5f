"""Z-order and Hilbert codes in one compiled pass.

One thread on purpose: data loaders read files (which Z-order codes take part in) in forked processes and in threads, where
numba's thread pools may abort the process; and the pass is close to the speed of memory.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor


def space_curve(task: str, values: Tensor, bits: int) -> Tensor:
    """Run one of the four conversions: (n, 3) cells → (n,) int64 codes, or (n,) codes → (n, 3) int32 cells."""
    hilbert = task.endswith("hilbert")
    if task.startswith("encode"):
        codes = np.empty(len(values), np.int64)
        _encode(values.numpy(), bits, hilbert, codes)
        return torch.from_numpy(codes)
    cells = np.empty((len(values), 3), np.int32)
    _decode(values.numpy(), bits, hilbert, cells)
    return torch.from_numpy(cells)


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(cells: np.ndarray, bits: int, hilbert: bool, codes: np.ndarray) -> None:
    for i in range(len(cells)):
        x, y, z = np.int64(cells[i, 0]), np.int64(cells[i, 1]), np.int64(cells[i, 2])
        if hilbert:
            for bit in range(bits - 1, 0, -1):
                low = (np.int64(1) << bit) - 1
                x ^= -(x >> bit & 1) & low
                x, y = _turn(x, y, bit, low)
                x, z = _turn(x, z, bit, low)
            y ^= x
            z ^= y
            flips = np.int64(0)
            for bit in range(1, bits):
                flips ^= -(z >> bit & 1) & ((np.int64(1) << bit) - 1)
            x, y, z = x ^ flips, y ^ flips, z ^ flips
        codes[i] = _spread(x) << 2 | _spread(y) << 1 | _spread(z)


@njit(cache=True, nogil=True, error_model="numpy")
def _decode(codes: np.ndarray, bits: int, hilbert: bool, cells: np.ndarray) -> None:
    for i in range(len(codes)):
        x, y, z = _gather(codes[i] >> 2), _gather(codes[i] >> 1), _gather(codes[i])
        if hilbert:
            x, y, z = x ^ (z >> 1), y ^ x, z ^ y
            for bit in range(1, bits):
                low = (np.int64(1) << bit) - 1
                x, z = _turn(x, z, bit, low)
                x, y = _turn(x, y, bit, low)
                x ^= -(x >> bit & 1) & low
        cells[i, 0], cells[i, 1], cells[i, 2] = x, y, z


@njit(cache=True, nogil=True, error_model="numpy")
def _turn(x: np.int64, other: np.int64, bit: int, low: np.int64) -> tuple[np.int64, np.int64]:
    """Flip the low bits of x if `bit` of other is set; else swap them with those of other."""
    is_set = -(other >> bit & 1)
    swap = (x ^ other) & low & ~is_set
    return x ^ swap ^ (is_set & low), other ^ swap


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(v: np.int64) -> np.int64:
    """Bit b of v to bit 3 b."""
    v = (v | v << 32) & 0x001F00000000FFFF
    v = (v | v << 16) & 0x001F0000FF0000FF
    v = (v | v << 8) & 0x100F00F00F00F00F
    v = (v | v << 4) & 0x10C30C30C30C30C3
    return (v | v << 2) & 0x1249249249249249


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(v: np.int64) -> np.int64:
    """Bit 3 b of v to bit b."""
    v &= 0x1249249249249249
    v = (v | v >> 2) & 0x10C30C30C30C30C3
    v = (v | v >> 4) & 0x100F00F00F00F00F
    v = (v | v >> 8) & 0x001F0000FF0000FF
    v = (v | v >> 16) & 0x001F00000000FFFF
    return (v | v >> 32) & 0x1FFFFF
