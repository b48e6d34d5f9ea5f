"""One view of a camera, and the part of its image that is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from voxgen.core import Camera

from ._preset import SplatPreset

Crop = tuple[int, int, int, int]
"""Left column, top row, width and height, in pixels of the full image."""


@dataclass(frozen=True)
class View:
    """What an engine needs to know of a view. All that depends on the image size is that of the full image, never of the crop.

    Args:
        rotation, translation, intrinsics: float64 tensors (3, 3), (3,), (3, 3).
        near, far: depths between which Gaussians are drawn; `near_included` says whether the near one is.
        low, high: limits of x / z and y / z in the Jacobian.
        crop: what part of the image to draw.   size: width and height of the full image.
    """

    rotation: Tensor
    translation: Tensor
    intrinsics: Tensor
    orthographic: bool
    near: float
    far: float
    near_included: bool
    low: tuple[float, float]
    high: tuple[float, float]
    crop: Crop
    size: tuple[int, int]
    preset: SplatPreset

    @staticmethod
    def of(camera: Camera, index: int, crop: Crop, preset: SplatPreset) -> View:
        pose, k = camera.world_to_camera[index].double(), camera.intrinsics[index].double()
        values = k.detach().tolist()
        low, high = [], []
        for axis, size in ((0, camera.width), (1, camera.height)):
            focal, centre = values[axis][axis], values[axis][2]
            if preset.clamp == "border":
                low.append(-(centre + preset.margin * size) / focal)
                high.append((size - centre + preset.margin * size) / focal)
            else:
                high.append(preset.margin * size / (2 * focal))
                low.append(-high[-1])
        own = preset.near is None
        near, far = (camera.near, camera.far) if preset.near is None else (preset.near, math.inf)
        limits = (low[0], low[1]), (high[0], high[1])
        return View(pose[:3, :3], pose[:3, 3], k, camera.orthographic, near, far, own, *limits, crop, (camera.width, camera.height), preset)
