"""The mathematics of structural similarity, which the loss and the metric share. Inputs are checked by these."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

WINDOW = 11
"""Width of the SSIM window in pixels."""
SIGMA = 1.5
"""Standard deviation of the SSIM window in pixels."""
K1, K2 = 0.01, 0.03
"""SSIM's constants: C₁ = (K₁ · data_range)², C₂ = (K₂ · data_range)²."""


def structural_similarity(image: Tensor, target: Tensor, data_range: float, padding: Literal["valid", "zero"]) -> Tensor:
    """SSIM of each image, (b,): means over windows and channels. See `voxgen.metrics.ssim` for the definition.

    Args:
        image, target: (b, c, h, w) of equal shape, float32 or float64, at least WINDOW pixels wide and high with "valid".
        data_range: difference between the largest and the smallest value that a pixel can have.
        padding: which windows: "valid" those inside the image, "zero" one for each pixel, with zeros around the image.
    """
    return similarity_map(image, target, data_range, padding).mean((1, 2, 3))


def similarity_map(image: Tensor, target: Tensor, data_range: float, padding: Literal["valid", "zero"]) -> Tensor:
    """SSIM of each window and channel, (b, c, h, w) or smaller by the window with "valid"; arguments as `structural_similarity`."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    with torch.autocast(image.device.type, enabled=False):  # variances cancel, which half types do not survive
        mu_x, mu_y, xx, yy, xy = _blur((image, target, image * image, target * target, image * target), padding)
        var_x, var_y, covariance = xx - mu_x.square(), yy - mu_y.square(), xy - mu_x * mu_y
        luminance = (2 * mu_x * mu_y + c1) / (mu_x.square() + mu_y.square() + c1)
        structure = (2 * covariance + c2) / (var_x + var_y + c2)
        return luminance * structure


def _blur(images: tuple[Tensor, ...], padding: Literal["valid", "zero"]) -> tuple[Tensor, ...]:
    """Gaussian window over each, as two passes along the axes."""
    stack = torch.cat(images, 1)
    b, c, h, w = stack.shape
    offset = torch.arange(WINDOW, dtype=stack.dtype, device=stack.device) - WINDOW // 2
    window = torch.exp(-(offset**2) / (2 * SIGMA**2))
    window = window / window.sum()
    pad = WINDOW // 2 if padding == "zero" else 0
    flat = stack.reshape(b * c, 1, h, w)
    flat = torch.nn.functional.conv2d(flat, window.view(1, 1, WINDOW, 1), padding=(pad, 0))
    flat = torch.nn.functional.conv2d(flat, window.view(1, 1, 1, WINDOW), padding=(0, pad))
    return flat.reshape(b, c, *flat.shape[2:]).chunk(len(images), 1)
