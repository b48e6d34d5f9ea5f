"""Z-order and Hilbert codes by whole-word bit tricks: no branch, any device."""

from __future__ import annotations

import torch
from torch import Tensor

# (shift, mask): after step k the bits of a 21-bit number stand in groups of 16, 8, 4, 2, 1 with room for two others between.
_SPREAD = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
_GATHER = tuple(zip((2, 4, 8, 16, 32), (*(mask for _, mask in reversed(_SPREAD[:-1])), 0x1FFFFF), strict=True))


def space_curve(task: str, values: Tensor, bits: int) -> Tensor:
    """Run one of the four conversions: (n, 3) cells → (n,) int64 codes, or (n,) codes → (n, 3) int32 cells."""
    if task.startswith("encode"):
        x, y, z = values.long().unbind(1)
        if task == "encode_hilbert":
            x, y, z = _to_transpose(x, y, z, bits)
        return _spread(x) << 2 | _spread(y) << 1 | _spread(z)
    x, y, z = _gather(values >> 2), _gather(values >> 1), _gather(values)
    if task == "decode_hilbert":
        x, y, z = _from_transpose(x, y, z, bits)
    return torch.stack((x, y, z), 1).int()


def _spread(v: Tensor) -> Tensor:
    """Bit b of v to bit 3 b."""
    for shift, mask in _SPREAD:
        v = (v | v << shift) & mask
    return v


def _gather(v: Tensor) -> Tensor:
    """Bit 3 b of v to bit b."""
    v = v & _SPREAD[-1][1]
    for shift, mask in _GATHER:
        v = (v | v >> shift) & mask
    return v


def _to_transpose(x: Tensor, y: Tensor, z: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        x = x ^ (_mask(x, bit) & low)
        x, y = _turn(x, y, bit, low)
        x, z = _turn(x, z, bit, low)
    y = y ^ x
    z = z ^ y
    flips = torch.zeros_like(z)
    for bit in range(1, bits):
        flips = flips ^ (_mask(z, bit) & ((1 << bit) - 1))
    return x ^ flips, y ^ flips, z ^ flips


def _from_transpose(x: Tensor, y: Tensor, z: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = x ^ (z >> 1), y ^ x, z ^ y
    for bit in range(1, bits):
        low = (1 << bit) - 1
        x, z = _turn(x, z, bit, low)
        x, y = _turn(x, y, bit, low)
        x = x ^ (_mask(x, bit) & low)
    return x, y, z


def _mask(v: Tensor, bit: int) -> Tensor:
    """All ones where `bit` of v is set, else 0."""
    return -(v >> bit & 1)


def _turn(x: Tensor, other: Tensor, bit: int, low: int) -> tuple[Tensor, Tensor]:
    """Flip the low bits of x where `bit` of other is set; elsewhere swap them with those of other."""
    is_set = _mask(other, bit)
    swap = (x ^ other) & low & ~is_set
    return x ^ swap ^ (is_set & low), other ^ swap
