"""Colours for numbers: maps whose lightness changes evenly, computed in the Oklab space."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from voxgen.core.checks import require_choice
from voxgen.core.material import linear_to_srgb

ColorMap = Literal["heat", "sea", "diverging"]
_MISSING = (0.55, 0.55, 0.55)

# (lightness, chroma, hue in degrees) in equal steps from low to high
_ANCHORS: dict[str, list[tuple[float, float, float]]] = {
    "heat": [(0.22, 0.09, 275), (0.38, 0.16, 300), (0.53, 0.20, 350), (0.66, 0.19, 30), (0.80, 0.15, 70), (0.95, 0.09, 105)],
    "sea": [(0.27, 0.13, 305), (0.42, 0.11, 265), (0.55, 0.09, 215), (0.68, 0.12, 165), (0.81, 0.17, 130), (0.93, 0.18, 105)],
    "diverging": [
        (0.40, 0.15, 260),
        (0.60, 0.13, 250),
        (0.80, 0.07, 240),
        (0.95, 0.0, 150),
        (0.80, 0.08, 50),
        (0.60, 0.16, 35),
        (0.40, 0.14, 25),
    ],
}


def apply_colormap(values: Tensor, low: float, high: float, colormap: ColorMap = "heat") -> Tensor:
    """Colour numbers by where they lie between two ends; numbers outside get the colour of the nearer end.

    Args:
        values: any shape, float; NaN becomes grey.
        low, high: the ends, low < high.
        colormap: "heat" (dark violet over red to light yellow) and "sea" (dark violet over blue and green to yellow) grow evenly in
            lightness, so they keep their order in print and for colour-blind readers; "diverging" runs from blue over white
            in the middle to red.
    Returns:
        (..., 3) sRGB-encoded in 0..1, in the dtype of values.
    Raises:
        RangeError: an unknown map.
    """
    require_choice("apply_colormap", "colormap", colormap, get_args(ColorMap))
    table = _table(colormap).to(values)
    place = ((values - low) / (high - low)).nan_to_num(0.0).clamp(0, 1) * (len(table) - 1)
    left = place.detach().floor().long().clamp(max=len(table) - 2)
    share = (place - left)[..., None]
    color = table[left] * (1 - share) + table[left + 1] * share
    return torch.where(values.isnan()[..., None], values.new_tensor(_MISSING), color)


@lru_cache(maxsize=8)
def _table(name: str) -> Tensor:
    """(256, 3) sRGB-encoded."""
    anchors = torch.tensor(_ANCHORS[name], dtype=torch.float64)
    angle = anchors[:, 2] * (math.pi / 180)
    lab = torch.stack((anchors[:, 0], anchors[:, 1] * angle.cos(), anchors[:, 1] * angle.sin()), 1)
    place = torch.linspace(0, len(lab) - 1, 256, dtype=torch.float64)
    left = place.floor().long().clamp(max=len(lab) - 2)
    share = (place - left)[:, None]
    return linear_to_srgb(_oklab_to_linear(lab[left] * (1 - share) + lab[left + 1] * share).clamp(0, 1))


def _oklab_to_linear(lab: Tensor) -> Tensor:
    """Oklab → linear sRGB (B. Ottosson, "A perceptual color space for image processing", 2020)."""
    to_cone = torch.tensor(
        [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]], dtype=lab.dtype
    )
    to_rgb = torch.tensor(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ],
        dtype=lab.dtype,
    )
    return (lab @ to_cone.T) ** 3 @ to_rgb.T
