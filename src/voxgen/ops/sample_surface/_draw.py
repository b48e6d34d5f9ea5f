"""Where samples fall: a share of the total area in [0, 1), and two coordinates in the unit square, each (n,) float64."""

from __future__ import annotations

import torch
from torch import Tensor

PLASTIC = 1.3247179572447460
"""Root of x³ = x + 1: steps of 1/x and 1/x² fill the unit square most evenly (the R₂ sequence)."""


def systematic(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One point in each of `samples` equal parts of the area, low-discrepancy inside the faces, shifted at random."""
    shift = torch.rand(3, generator=generator, dtype=torch.float64)
    index = torch.arange(samples, dtype=torch.float64)
    return (index + shift[0]) / samples, (index / PLASTIC + shift[1]) % 1, (index / PLASTIC**2 + shift[2]) % 1


def independent(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Every number by itself."""
    along, u, v = torch.rand(3, samples, generator=generator, dtype=torch.float64)
    return along, u, v
