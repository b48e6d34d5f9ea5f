"""Hammersley's point set: n points that fill a cube evenly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def hammersley(count: int, bases: tuple[int, ...] = (2, 3)) -> Float[Tensor, "n d"]:
    """Point i is (i / n, radical inverse of i to each base); float64 on the CPU, in [0, 1)."""
    points = [[i / count, *(radical_inverse(i, base) for base in bases)] for i in range(count)]
    return torch.tensor(points, dtype=torch.float64, device="cpu").reshape(count, 1 + len(bases))


def radical_inverse(number: int, base: int) -> float:
    """The digits of the number mirrored at the point."""
    inverse, share = 0.0, 1.0
    while number:
        share /= base
        inverse += share * (number % base)
        number //= base
    return inverse
