"""Light from all around: a picture of the surroundings, blurred once for matt and for rough surfaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, pad

from voxgen.core.checks import require_finite, require_int, require_tensor
from voxgen.core.errors import RangeError

_FLOATS = (torch.float32, torch.float64)
_SOFT = (0.15, 64)
"""Roughness whose lobe is about as wide as a pixel of a picture of this many rows: that picture, reduced, serves for it."""
_ROUGH = ((0.3, 32), (0.5, 24), (0.75, 16), (1.0, 16))
"""Roughness of the blurred pictures, and their rows; twice as many columns."""
_SOURCE_HEIGHT = 32
"""Rows of the picture that blurring reads: no narrower than the least of these lobes."""
_MATT_HEIGHT = 16


@dataclass(frozen=True, eq=False)
class EnvironmentLight:
    """Surroundings infinitely far away, for `Lighting`. Made by `from_equirectangular` or `from_cube`.

    Pictures are equirectangular: row 0 is straight up, the middle column lies ahead of a viewer at azimuth 0 (along -z where y
    is up), columns to the right follow to its right. All are linear light and differentiable in the picture they come from.

    Args:
        matt: (h, w, 3) radiance of a white matt surface by its normal.
        mirror: pictures (h, w, 3) by the mirrored direction, blurred for each entry of `roughness`.
        roughness: of the mirror pictures, ascending from 0 to 1; values between are mixed.
    """

    matt: Tensor
    mirror: tuple[Tensor, ...]
    roughness: tuple[float, ...]

    @staticmethod
    def from_equirectangular(image: Tensor, *, rotation: float = 0.0, strength: float = 1.0, mirror_height: int = 256) -> EnvironmentLight:
        """From a panorama.

        Args:
            image: (h, w, 3) float, linear light of 0 or more (what an .hdr file holds), row 0 straight up; usually w = 2 h.
            rotation: degrees by which the surroundings turn about the vertical axis, counter-clockwise seen from above.
            strength: factor on the light, 0 or more.
            mirror_height: rows that smooth mirrors see; larger pictures are reduced to it.
        Raises:
            ShapeError, DtypeError: image is not (h, w, 3) float32 or float64.   RangeError: light that is negative or not finite, a
            strength or size out of range.
        Numerics: every direction weighs its solid angle. Blurring reads the picture reduced to 32 × 64, so a lamp of less than
            6° spreads to that; its light is kept. A constant picture stays exactly that constant.
        Source: split-sum image-based lighting: B. Karis, "Real shading in Unreal Engine 4", 2013, its first sum; GGX lobes with the
            viewer along the normal.
        """
        where = "EnvironmentLight.from_equirectangular"
        require_tensor(where, "image", image, ("h", "w", 3), _FLOATS, hint="Linear light. Bytes? Divide by 255 and decode sRGB.")
        mirror_height = require_int(where, "mirror_height", mirror_height, 2, 8192)
        if image.numel() == 0:
            raise RangeError(f"{where}: image must have at least one pixel; got {tuple(image.shape)}.")
        require_finite(where, "image", image.detach())
        if bool((image < 0).any()):
            raise RangeError(f"{where}: image must be light of 0 or more; its least value is {float(image.detach().min())}.")
        if not (math.isfinite(strength) and strength >= 0 and math.isfinite(rotation)):
            raise RangeError(f"{where}: strength must be 0 or more and rotation finite; got {strength} and {rotation}.")
        panorama = _turned(image * strength, rotation)
        sharp, soft = _reduced(panorama, mirror_height), _reduced(panorama, _SOFT[1])
        coarse = _reduced(panorama, _SOURCE_HEIGHT)
        matt = _blurred(coarse, _MATT_HEIGHT, lambda cosine: cosine.clamp(min=0))
        rough = [_blurred(coarse, height, _lobe(value)) for value, height in _ROUGH]
        return EnvironmentLight(matt, (sharp, soft, *rough), (0.0, _SOFT[0], *(value for value, _ in _ROUGH)))

    @staticmethod
    def from_cube(faces: Tensor, *, rotation: float = 0.0, strength: float = 1.0, mirror_height: int = 256) -> EnvironmentLight:
        """From a cube map.

        Args:
            faces: (6, n, n, 3) float, linear light, in OpenGL's order +x, -x, +y, -y, +z, -z and orientation (seen from inside, faces
                stand mirrored, as there); y is up.
            rotation, strength, mirror_height: as for `from_equirectangular`.
        Raises:
            As `from_equirectangular`.
        """
        where = "EnvironmentLight.from_cube"
        require_tensor(where, "faces", faces, (6, "n", "n", 3), _FLOATS)
        if faces.shape[1] != faces.shape[2] or faces.shape[1] == 0:
            raise RangeError(f"{where}: faces must be square and not empty; got {faces.shape[1]} × {faces.shape[2]}.")
        rows = max(64, min(2 * faces.shape[1], require_int(where, "mirror_height", mirror_height, 2, 8192)))
        directions = _directions(rows, 2 * rows).to(faces)
        panorama = _read_cube(faces, directions)
        return EnvironmentLight.from_equirectangular(panorama, rotation=rotation, strength=strength, mirror_height=mirror_height)

    def to(self, target: Tensor) -> EnvironmentLight:
        """On the device and in the dtype of a tensor."""
        return EnvironmentLight(self.matt.to(target), tuple(image.to(target) for image in self.mirror), self.roughness)

    def diffuse(self, direction: Tensor) -> Tensor:
        """(n, 3) light from a white matt surface with unit normals (n, 3), y up. Differentiable in both."""
        return _look_up(self.matt, direction)

    def specular(self, direction: Tensor, roughness: Tensor) -> Tensor:
        """(n, 3) light from unit directions (n, 3), y up, blurred for roughness (n, 1) in [0, 1]. Differentiable in all."""
        levels = torch.tensor(self.roughness).to(roughness)
        upper = torch.searchsorted(levels, roughness.detach().clamp(0, 1)).clamp(1, len(levels) - 1)
        low, high = levels[upper - 1], levels[upper]
        share = ((roughness - low) / (high - low)).clamp(0, 1)
        found = torch.zeros_like(direction)
        for i, image in enumerate(self.mirror):
            weight = torch.where(upper == i, share, torch.where(upper - 1 == i, 1 - share, 0))
            rows = (weight.detach()[:, 0] > 0).nonzero()[:, 0]
            found = found.index_add(0, rows, _look_up(image, direction[rows]) * weight[rows])
        return found


def _directions(height: int, width: int) -> Tensor:
    """(h, w, 3) float64 unit directions of an equirectangular picture's pixels."""
    polar = (torch.arange(height, dtype=torch.float64) + 0.5) * (math.pi / height)
    azimuth = (torch.arange(width, dtype=torch.float64) + 0.5) * (2 * math.pi / width) - math.pi
    polar, azimuth = polar[:, None].expand(height, width), azimuth.expand(height, width)
    return torch.stack((polar.sin() * azimuth.sin(), polar.cos(), -polar.sin() * azimuth.cos()), -1)


def _solid_angles(image: Tensor) -> Tensor:
    """(h, w) of the pixels, exactly."""
    height, width = image.shape[:2]
    edges = (torch.arange(height + 1, dtype=torch.float64) * (math.pi / height)).cos()
    return ((edges[:-1] - edges[1:]) * (2 * math.pi / width))[:, None].expand(height, width).to(image)


def _turned(image: Tensor, rotation: float) -> Tensor:
    """The picture moved sideways by an angle, between columns linearly."""
    width = image.shape[1]
    shift = rotation / 360 * width
    whole = math.floor(shift)
    part = shift - whole
    moved = image.roll(-whole, 1)
    return moved if part == 0 else moved * (1 - part) + image.roll(-whole - 1, 1) * part


def _reduced(image: Tensor, height: int) -> Tensor:
    """At most `height` rows and twice as many columns; means weigh pixels by their solid angles."""
    size = (min(height, image.shape[0]), min(2 * height, image.shape[1]))
    if size == tuple(image.shape[:2]):
        return image
    weight = _solid_angles(image)[None]
    light = adaptive_avg_pool2d(image.permute(2, 0, 1) * weight, size)
    return (light / adaptive_avg_pool2d(weight, size)).permute(1, 2, 0)


def _lobe(roughness: float) -> Callable[[Tensor], Tensor]:
    """Weight of light by the cosine of its angle to the mirrored direction: the GGX lobe seen along the normal."""
    spread = roughness**4  # the square of glTF's α = roughness²

    def weight(cosine: Tensor) -> Tensor:
        half = (1 + cosine) / 2  # squared cosine of half the angle, which lies between the normal and the micro-facet
        return cosine.clamp(min=0) * spread / (half * (spread - 1) + 1) ** 2

    return weight


def _blurred(image: Tensor, height: int, weight: Callable[[Tensor], Tensor]) -> Tensor:
    """(h, 2 h, 3) means of a picture's light, weighted by its angle to each direction."""
    source = _directions(*image.shape[:2]).to(image).reshape(-1, 3)
    target = _directions(height, 2 * height).to(image).reshape(-1, 3)
    share = weight(target @ source.T) * _solid_angles(image).flatten()
    return (share @ image.reshape(-1, 3) / share.sum(1, keepdim=True)).reshape(height, 2 * height, 3)


def _look_up(image: Tensor, direction: Tensor) -> Tensor:
    """(n, 3) of an equirectangular picture in directions (n, 3), bilinear, across its side borders."""
    x, y, z = direction.unbind(1)
    around = x * x + z * z
    pole = around < 1e-12  # straight up or down there is no azimuth, and its derivative is infinite
    azimuth = torch.atan2(torch.where(pole, 0, x), torch.where(pole, 1, -z))
    polar = torch.atan2(torch.where(pole, 1e-12, around).sqrt(), y)
    width = image.shape[1]
    column = (azimuth / (2 * math.pi) + 0.5) * width + 1  # in the padded picture, whose first column is the last one
    place = torch.stack((2 * column / (width + 2) - 1, 2 * polar / math.pi - 1), -1)
    padded = pad(image.permute(2, 0, 1)[None], (1, 1, 0, 0), mode="circular")
    found = grid_sample(padded, place[None, :, None].to(padded), mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T


_CUBE_AXES = ((2, -1, 1, -1), (2, 1, 1, -1), (0, 1, 2, 1), (0, 1, 2, -1), (0, 1, 1, -1), (0, -1, 1, -1))
"""For each face: axis and sign of what grows along its columns, then along its rows."""


def _read_cube(faces: Tensor, directions: Tensor) -> Tensor:
    """(h, w, 3) of a cube map in directions (h, w, 3), bilinear inside each face."""
    flat = directions.reshape(-1, 3)
    axis = flat.abs().argmax(1)
    major = flat.gather(1, axis[:, None])[:, 0]
    face = 2 * axis + (major < 0)
    found = flat.new_zeros(len(flat), 3)
    for i, (a, sign_a, b, sign_b) in enumerate(_CUBE_AXES):
        rows = (face == i).nonzero()[:, 0]
        scale = 1 / major[rows].abs()
        place = torch.stack((sign_a * flat[rows, a] * scale, sign_b * flat[rows, b] * scale), -1)
        image = faces[i].permute(2, 0, 1)[None]
        read = grid_sample(image, place[None, :, None], mode="bilinear", padding_mode="border", align_corners=False)
        found = found.index_copy(0, rows, read[0, :, :, 0].T)
    return found.reshape(directions.shape)
