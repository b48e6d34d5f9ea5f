"""The constants in which published renderers differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from voxgen.core.errors import RangeError

Compensation = Literal["none", "determinant", "mip"]
CLASSIC, ANTIALIASED = "none", "determinant"


@dataclass(frozen=True)
class SplatPreset:
    """How a Gaussian becomes a spot on the image.

    Args:
        alpha_max: the most that one Gaussian covers of a pixel.
        blur: variance in px² that is added to each spot.
        compensation: "none"; "determinant": opacity times sqrt(D before blur / D after), so that small Gaussians do not grow brighter;
            "mip": the same with the floors of the mip-splatting rasteriser, and 0 where a determinant is at most 1e-6.
        near: depth at and below which Gaussians are dropped; None takes the camera's near and far, both included.
        margin: where the Jacobian of a Gaussian's centre outside the image stops to grow, as a share of the image size beyond its border
            ("border"), or of the half field of view about the optical axis ("axis").
        clamp: which of the two.
        strict_stop: True stops a pixel at a transmittance below 1e-4, False at or below.
        depth_offset: added to the depth by which positions are divided.
    Raises:
        RangeError: a number out of range.
    """

    alpha_max: float = 0.999
    blur: float = 0.3
    compensation: Compensation = CLASSIC
    near: float | None = None
    clamp: Literal["border", "axis"] = "border"
    margin: float = 0.15
    strict_stop: bool = False
    depth_offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha_max < 1:
            raise RangeError(f"SplatPreset: alpha_max must lie in (0, 1); got {self.alpha_max}.")
        if not 0 <= self.blur < math.inf or not 0 <= self.margin < math.inf:
            raise RangeError(f"SplatPreset: blur and margin must be finite and not negative; got {self.blur} and {self.margin}.")
        if self.compensation not in ("none", "determinant", "mip") or self.clamp not in ("border", "axis"):
            raise RangeError(f"SplatPreset: unknown compensation {self.compensation!r} or clamp {self.clamp!r}.")


PRESETS = {
    "gsplat": SplatPreset(),
    "trellis": SplatPreset(0.99, 0.1, "mip", 0.2, "axis", 1.3, True, 1e-7),
}
"""gsplat 1.5.3, "classic"; and the mip-splatting rasteriser as TRELLIS calls it (kernel size 0.1), without its cut at 16-pixel tiles."""

SMALLEST_ALPHA = 1 / 255
STOP = 1e-4
"""A Gaussian that covers less than SMALLEST_ALPHA of a pixel is not drawn there; a pixel is full when only STOP of the light passes."""
FLOOR = 1e-6
"""Floor of determinants in "mip"."""
