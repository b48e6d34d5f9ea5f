"""Which reduced level fits the footprint of a pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def footprint_level(steps: Tensor) -> Tensor:
    """log2 of the longer axis of a pixel's footprint; far below 0 where the footprint is a point.

    Args:
        steps: (..., 2, 2) how the place in a texture, in texels, changes to the next pixel right and down. A unit circle around a pixel
            becomes an ellipse in the texture, whose longer half axis is the larger singular value of this matrix.
    """
    right, down = steps[..., 0], steps[..., 1]
    p, q, r = right.square().sum(-1), down.square().sum(-1), (right * down).sum(-1)
    # the root of 0 has no derivative; 1e-20 is far below any footprint that matters
    largest = (p + q) / 2 + (((p - q) / 2).square() + r.square()).clamp(min=1e-20).sqrt()
    return torch.log2(largest.clamp(min=1e-10)) / 2
