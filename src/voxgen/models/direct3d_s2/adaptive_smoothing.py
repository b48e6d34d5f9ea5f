"""Smoothing of a dense volume whose strength and direction a network reads from the volume."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.errors import ShapeError

__all__ = ["AdaptiveSmoothing", "apply_stencil"]

TAPS = 27
SMALLEST_SUM = 1e-12


class AdaptiveSmoothing(nn.Sequential):
    """A 3×3×3 stencil of its own for every cell, made once by two convolutions and applied several times.

    Args:
        channels: width of the volume that the stencil is read from.
        iterations: how often it is applied.
    Parameters: `0.{weight (channels, channels, 3, 3, 3), bias}`, `2.weight (27, channels, 3, 3, 3)`.
    Shape: guide (b, channels, x, y, z), x (b, c, x, y, z) of any width, None for the guide itself → as x. Zeros lie beyond the
        volume.
    Raises:
        ShapeError: guide and x differ in more than their width.
    Source: the adaptive layers of Direct3D-S2's refiner; differences: none. Absolute weights sum to 1 and signs stay, so a
        stencil need not be an average.
    Example:
        >>> AdaptiveSmoothing(8)(torch.zeros(1, 8, 4, 4, 4)).shape
        torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(self, channels: int, iterations: int = 3) -> None:
        super().__init__(nn.Conv3d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv3d(channels, TAPS, 3, padding=1, bias=False))
        self.iterations = iterations

    def forward(self, guide: Float[Tensor, "b g x y z"], x: Float[Tensor, "b c x y z"] | None = None) -> Float[Tensor, "b c x y z"]:  # pyright: ignore[reportIncompatibleMethodOverride] (two inputs)
        volume = guide if x is None else x
        stencil = F.normalize(super().forward(guide), p=1, dim=1, eps=SMALLEST_SUM)
        for _ in range(self.iterations):
            volume = apply_stencil(volume, stencil)
        return volume


def apply_stencil(x: Float[Tensor, "b c x y z"], stencil: Float[Tensor, "b 27 x y z"]) -> Float[Tensor, "b c x y z"]:
    """Sum over the 3×3×3 cells around each cell, weighted by the cell's own stencil.

    Args:
        x: (b, c, x, y, z) floats; zeros lie beyond it.
        stencil: (b, 27, x, y, z); entry 9i + 3j + k weighs the cell at offset (i − 1, j − 1, k − 1), alike for all channels.
    Returns:
        As x. Differentiable in both. A tap at a time, so that no 27-fold copy of x is made.
    Raises:
        ShapeError: a stencil of another volume.
    Example:
        >>> stencil = torch.zeros(1, 27, 2, 2, 2); stencil[:, 13] = 1      # each cell itself
        >>> x = torch.arange(8.0).view(1, 1, 2, 2, 2)
        >>> torch.equal(apply_stencil(x, stencil), x)
        True
    """
    if x.ndim != 5 or stencil.shape != (x.shape[0], TAPS, *x.shape[2:]):
        raise ShapeError(
            f"apply_stencil: x must be (b, c, x, y, z) and stencil (b, {TAPS}, x, y, z); got {tuple(x.shape)} and {tuple(stencil.shape)}."
        )
    padded = F.pad(x, (1, 1, 1, 1, 1, 1))
    out = torch.zeros_like(x)
    for tap in range(TAPS):
        i, j, k = tap // 9, tap // 3 % 3, tap % 3
        cells = padded[:, :, i : i + x.shape[2], j : j + x.shape[3], k : k + x.shape[4]]
        out.addcmul_(stencil[:, tap, None], cells)
    return out
