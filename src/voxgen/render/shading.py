"""Light on a surface: a few distant lights that move with the camera, and surroundings: sky and ground, or a picture of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core.aliases import Float3
from voxgen.core.errors import RangeError

from .environment import EnvironmentLight
from .surface import Surface


@dataclass(frozen=True)
class Lighting:
    """Lights for `render_mesh`.

    Args:
        lights: for each, the direction to it in camera axes (x right, y down, z away from the viewer) and its strength: linear RGB of
            a white, matt surface that faces it. Lights have no place and cast no shadows.
        sky, ground: linear RGB from above and below; directions between mix them.
        environment: surroundings that stand in for sky and ground, which do not count then.
    Raises:
        RangeError: a direction without length, or a negative or infinite strength.
    """

    lights: tuple[tuple[Float3, Float3], ...] = (
        ((-0.55, -0.75, -0.75), (0.86, 0.84, 0.80)),
        ((0.0, 0.0, -1.0), (0.16, 0.16, 0.17)),
        ((0.8, -0.35, 0.45), (0.40, 0.43, 0.50)),
    )
    sky: Float3 = (0.31, 0.33, 0.36)
    ground: Float3 = (0.13, 0.12, 0.11)
    environment: EnvironmentLight | None = None

    def __post_init__(self) -> None:
        for direction, strength in self.lights:
            if not math.isfinite(math.hypot(*direction)) or math.hypot(*direction) == 0:
                raise RangeError(f"Lighting: a light's direction must have a length; got {direction}.")
            _require_light("a light's strength", strength)
        _require_light("sky", self.sky)
        _require_light("ground", self.ground)

    @staticmethod
    def headlight(strength: float = 1.0) -> Lighting:
        """One white light at the camera and nothing else: plain shading by the angle to the view."""
        return Lighting((((0.0, 0.0, -1.0), (strength, strength, strength)),), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))

    @staticmethod
    def surrounded(environment: EnvironmentLight) -> Lighting:
        """The surroundings alone, without further lights."""
        return Lighting((), environment=environment)


def _require_light(name: str, value: Float3) -> None:
    if len(value) != 3 or not all(math.isfinite(c) and c >= 0 for c in value):
        raise RangeError(f"Lighting: {name} must be three finite numbers, 0 or more; got {value}.")


def lambert(surface: Surface, lighting: Lighting, camera_axes: Tensor, level: Tensor) -> Tensor:
    """(n, 3) linear light from a surface taken as matt, whatever its material.

    Args:
        camera_axes: (3, 3), rows are the camera's axes in world space.
        level: (3, 3), rows are right, up and backwards for a viewer at azimuth 0, in world space.
    """
    n = surface.normal
    light = _matt(n @ level.T, lighting) * surface.occlusion
    for direction, strength in _world_lights(lighting, camera_axes):
        light = light + (n * direction).sum(1, keepdim=True).clamp(min=0) * strength
    return surface.base_color * light + surface.emissive


def metallic_roughness(surface: Surface, viewer: Tensor, lighting: Lighting, camera_axes: Tensor, level: Tensor) -> Tensor:
    """(n, 3) linear light by the model of glTF 2.0 (appendix B): Lambert and GGX with Smith's shadowing and Schlick's Fresnel term.

    The surroundings count with their value along the normal (matt part) and the reflected direction (mirror part, blurred by
    the roughness).

    Args:
        viewer: (n, 3) unit directions to the eye.
    """
    n, metallic = surface.normal, surface.metallic.clamp(0, 1)
    roughness = surface.roughness.clamp(0.05, 1)
    matt = surface.base_color * (1 - metallic)
    mirror = 0.04 + (surface.base_color - 0.04) * metallic
    n_v = (n * viewer).sum(1, keepdim=True).clamp(min=1e-3)
    reflected = 2 * n_v * n - viewer
    grazing = mirror + (torch.maximum(1 - roughness, mirror) - mirror) * (1 - n_v) ** 5
    ambient = matt * _matt(n @ level.T, lighting) + grazing * _mirrored(reflected @ level.T, roughness, lighting)
    light = ambient * surface.occlusion + surface.emissive
    spread = roughness**4  # the square of glTF's α = roughness²
    for direction, strength in _world_lights(lighting, camera_axes):
        half = normalize(viewer + direction, dim=1)
        n_l = (n * direction).sum(1, keepdim=True).clamp(min=0)
        n_h = (n * half).sum(1, keepdim=True).clamp(0, 1)
        v_h = (viewer * half).sum(1, keepdim=True).clamp(0, 1)
        fresnel = mirror + (1 - mirror) * (1 - v_h) ** 5
        # times π: strengths are radiances of a white matt surface
        facets = spread / (n_h**2 * (spread - 1) + 1) ** 2
        masking = n_l * (n_v**2 * (1 - spread) + spread).sqrt() + n_v * (n_l**2 * (1 - spread) + spread).sqrt()
        light = light + strength * n_l * ((1 - fresnel) * matt + fresnel * facets / (2 * masking).clamp(min=1e-6))
    return light


def _world_lights(lighting: Lighting, camera_axes: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [
        (normalize(camera_axes.new_tensor(direction) @ camera_axes, dim=0), camera_axes.new_tensor(strength))
        for direction, strength in lighting.lights
    ]


def _matt(direction: Tensor, lighting: Lighting) -> Tensor:
    """Light of the surroundings from a white matt surface with normals (n, 3), y up."""
    if lighting.environment is not None:
        return lighting.environment.to(direction).diffuse(direction)
    return _sky_and_ground(direction[:, 1:2], lighting, 0.0)


def _mirrored(direction: Tensor, roughness: Tensor, lighting: Lighting) -> Tensor:
    """Light of the surroundings that comes from directions (n, 3), y up, the more blurred the rougher."""
    if lighting.environment is not None:
        return lighting.environment.to(direction).specular(direction, roughness)
    return _sky_and_ground(direction[:, 1:2], lighting, 1 - roughness)


def _sky_and_ground(height: Tensor, lighting: Lighting, sharpness: Tensor | float) -> Tensor:
    """Light from a direction of this height (-1 down, 1 up): ground to sky, the steeper at the horizon the sharper."""
    share = (0.5 + 0.5 * height * (1 + 4 * sharpness)).clamp(0, 1)
    share = share * share * (3 - 2 * share)
    sky, ground = height.new_tensor(lighting.sky), height.new_tensor(lighting.ground)
    return ground + (sky - ground) * share


def soft_clip(light: Tensor) -> Tensor:
    """Linear light without bound → [0, 1): unchanged up to 0.7, above it bent smoothly towards 1."""
    knee = 0.7
    return torch.where(light <= knee, light.clamp(min=0), 1 - (1 - knee) * torch.exp((knee - light.clamp(min=knee)) / (1 - knee)))
