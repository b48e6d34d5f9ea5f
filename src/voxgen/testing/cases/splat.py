"""Cases of `splat`: Gaussians in general position, opaque, behind and around the camera, thin, huge, none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Camera
from voxgen.ops.splat import PRESETS, SplatPreset, harmonic_colors, splat

from . import Case

DTYPES = (torch.float32, torch.float64)
INPUTS = ("means", "rotations", "scales", "opacities", "features")


def scene(
    count: int, seed: int, dtype: torch.dtype, *, size: float = 0.1, opaque: bool = False, degree: int | None = None
) -> dict[str, Tensor]:
    """Gaussians of all shapes around the origin; features of three channels, or harmonics."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    features = rand(count, 3) if degree is None else torch.randn(count, (degree + 1) ** 2, 3, generator=g, dtype=torch.float64) / 3
    found = {
        "means": rand(count, 3) - 0.5,
        "rotations": torch.randn(count, 4, generator=g, dtype=torch.float64),
        "scales": size * (0.05 + rand(count, 3)),
        "opacities": 1 - 0.01 * rand(count) if opaque else 0.02 + 0.97 * rand(count),
        "features": features,
    }
    return {name: value.to(dtype) for name, value in found.items()}


def views(dtype: torch.dtype, width: int = 33, height: int = 21, **options: Any) -> Camera:
    """Three views: from outside, from inside, and one that sees nothing."""
    eyes = torch.tensor([[0.7, 0.8, 1.3], [0.1, 0.05, 0.2], [0.0, 0.0, 4.0]], dtype=torch.float64)
    camera = Camera.look_at(eyes, width=width, height=height, **{"fov": 55.0, "near": 0.05, "far": 50.0, **options})
    away = camera.world_to_camera.clone()
    away[2, 2, 3] -= 100  # everything lies behind
    return Camera(away.to(dtype), camera.intrinsics.to(dtype), width, height, camera.near, camera.far, camera.orthographic)


def _case(name: str, inputs: dict[str, Tensor], camera: Camera, preset: str | SplatPreset = "gsplat", **options: Any) -> Case:
    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        here = camera.to(given["means"].device)
        features = given["features"]
        if features.ndim == 3 and features.shape[2] == 3 and len(features) == len(given["means"]):
            features = torch.stack([harmonic_colors(features, given["means"], eye) for eye in here.positions])
        background = options.get("background")
        moved = {**options, "background": None if background is None else background.to(features)}
        means, rotations, scales, opacities = (given[k] for k in INPUTS[:4])
        out = splat(means, rotations, scales, opacities, features, here, preset=preset, backend=backend, **moved)
        return {"image": out.image, "alpha": out.alpha}

    constants = PRESETS[preset] if isinstance(preset, str) else preset
    return Case(name, inputs, run, INPUTS, {"camera_grad": False, "preset": constants})


def cases(dtype: torch.dtype) -> list[Case]:
    camera = views(dtype)
    parallel = views(dtype, near=0.0, orthographic_height=1.2)
    huge = scene(12, 4, dtype)
    huge["scales"] = huge["scales"] * torch.tensor([1e-9, 1.0, 1e3, 1e12], dtype=dtype).repeat(3)[:, None]
    huge["scales"][0] = 0
    thin = scene(20, 5, dtype)
    thin["scales"][:, 1:] *= 1e-6
    wide = scene(9, 6, dtype)
    wide["features"] = torch.randn(9, 67, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype)
    strided = {name: value.repeat_interleave(2, 0)[::2] for name, value in scene(15, 7, dtype).items()}
    ties = scene(10, 8, dtype)
    ties["means"][:] = ties["means"][0]
    many: list[tuple[str, Callable[[], dict[str, Tensor]]]] = [("none", lambda: scene(0, 0, dtype)), ("one", lambda: scene(1, 1, dtype))]
    own = SplatPreset(alpha_max=0.9, blur=0.0, near=0.3)
    return [
        *(_case(name, make(), camera, background=torch.tensor([0.2, 0.5, 0.8])) for name, make in many),
        _case("gsplat, three views", scene(60, 2, dtype), camera),
        _case("trellis, three views", scene(60, 2, dtype), camera, "trellis", background=torch.ones(3, 3)),
        _case("opaque, pixels that fill", scene(80, 3, dtype, size=0.3, opaque=True), camera),
        _case("opaque, trellis", scene(80, 3, dtype, size=0.3, opaque=True), camera, "trellis"),
        _case("antialiased crop", scene(60, 2, dtype, size=0.02), camera, antialiased=True, crop=(5, 3, 20, 17)),
        _case("crop of one pixel", scene(60, 2, dtype), camera, "trellis", crop=(17, 11, 1, 1)),
        _case("colours by direction", scene(40, 9, dtype, degree=3), camera),
        _case("orthographic", scene(40, 2, dtype), parallel),
        _case("points, huge, and between", huge, camera),
        _case("points and huge, trellis", huge, camera, "trellis"),
        _case("needles, own constants", thin, camera, own),
        _case("many channels", wide, camera),
        _case("no channels", {**scene(9, 6, dtype), "features": torch.zeros(9, 0, dtype=dtype)}, camera),
        _case("not contiguous", strided, camera),
        _case("equal depths", ties, camera),
        _case("several tiles", scene(60, 2, dtype, size=0.05), views(dtype, 70, 50)),
    ]
