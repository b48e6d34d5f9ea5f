"""Z-order and Hilbert codes, bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor


def space_curve(task: str, values: Tensor, bits: int) -> Tensor:
    """Run one of the four conversions: (n, 3) cells → (n,) int64 codes, or (n,) codes → (n, 3) int32 cells."""
    if task == "encode_z_order":
        return interleave(values.long(), bits)
    if task == "encode_hilbert":
        return interleave(_to_transpose(values.long(), bits), bits)
    cells = _spread_out(values, bits)
    return (_from_transpose(cells, bits) if task == "decode_hilbert" else cells).int()


def interleave(cells: Tensor, bits: int) -> Tensor:
    """Bit b of axis a becomes bit 3 b + 2 - a of the code."""
    codes = cells.new_zeros(len(cells))
    for bit in range(bits):
        for axis in range(3):
            codes |= (cells[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return codes


def _spread_out(codes: Tensor, bits: int) -> Tensor:
    cells = codes.new_zeros(len(codes), 3)
    for bit in range(bits):
        for axis in range(3):
            cells[:, axis] |= (codes >> (3 * bit + 2 - axis) & 1) << bit
    return cells


def _to_transpose(cells: Tensor, bits: int) -> Tensor:
    """Skilling's transform: cells → the Hilbert code's bits, dealt out to three numbers as `interleave` will collect them."""
    x, y, z = cells.unbind(1)
    for bit in reversed(range(1, bits)):
        x, y, z = _undo_turns(x, y, z, bit, axes=(0, 1, 2))
    y = y ^ x  # Gray code
    z = z ^ y
    flips = torch.zeros_like(z)
    for bit in reversed(range(1, bits)):
        flips = torch.where(z >> bit & 1 == 1, flips ^ ((1 << bit) - 1), flips)
    return torch.stack((x ^ flips, y ^ flips, z ^ flips), 1)


def _from_transpose(transposed: Tensor, bits: int) -> Tensor:
    """Inverse of `_to_transpose`."""
    x, y, z = transposed.unbind(1)
    first = z >> 1
    z = z ^ y
    y = y ^ x
    x = x ^ first
    for bit in range(1, bits):
        x, y, z = _undo_turns(x, y, z, bit, axes=(2, 1, 0))
    return torch.stack((x, y, z), 1)


def _undo_turns(x: Tensor, y: Tensor, z: Tensor, bit: int, axes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each axis: where its `bit` is set flip the lower bits of x, elsewhere swap the lower bits of x and the axis."""
    low = (1 << bit) - 1
    parts = [x, y, z]
    for axis in axes:
        is_set = parts[axis] >> bit & 1 == 1
        swap = torch.where(is_set, 0, (parts[0] ^ parts[axis]) & low)
        parts[axis] = parts[axis] ^ swap
        parts[0] = torch.where(is_set, parts[0] ^ low, parts[0] ^ swap)
    return parts[0], parts[1], parts[2]
