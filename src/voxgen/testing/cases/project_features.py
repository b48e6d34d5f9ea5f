"""Inputs for `voxgen.ops.project_features`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Camera
from voxgen.ops.project_features import project_features

from . import Case

DTYPES = (torch.float32, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """Views of every kind, maps of one texel and of uneven sizes, points behind and outside, options."""
    near = _cameras(5, 3.0)
    made = [
        _case(dtype, "mean", 40, 7, (5, 5), near),
        _case(dtype, "seen", 40, 7, (5, 9), near, average="seen"),
        _case(dtype, "inside", 40, 3, (6, 4), _cameras(5, 0.2), average="seen"),
        _case(dtype, "parallel", 30, 1, (4, 4), _cameras(3, 3.0, orthographic_height=0.8), average="seen"),
        _case(dtype, "one-texel", 9, 67, (1, 1), near),
        _case(dtype, "hidden", 40, 4, (5, 5), near, average="seen", depth=True),
        _case(dtype, "by-angle", 40, 4, (5, 5), near, average="seen", normals=True),
        _case(dtype, "no-points", 0, 4, (5, 5), near),
        _case(dtype, "no-views", 6, 4, (5, 5), near[0:0]),
    ]
    return made


def _cameras(count: int, distance: float, **options: Any) -> Camera:
    eyes = torch.nn.functional.normalize(_normal(count, 3, seed=3), dim=1) * distance
    return Camera.look_at(eyes, fov=30.0, width=40, height=30, **options)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _case(
    dtype: torch.dtype,
    name: str,
    points: int,
    channels: int,
    size: tuple[int, int],
    cameras: Camera,
    depth: bool = False,
    normals: bool = False,
    **options: Any,
) -> Case:
    v = len(cameras)
    features = _normal(v, *size, channels, seed=1).permute(0, 3, 1, 2)  # not contiguous
    inputs = {"points": 0.4 * _normal(points, 3, seed=0), "features": features}
    if depth:
        inputs["depth"] = 3 + 0.3 * _normal(v, 11, 13, seed=2)
        inputs["depth"][:, 3:5] = 0
    if normals:
        inputs["normals"] = torch.nn.functional.normalize(_normal(points, 3, seed=4), dim=1)

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = cameras.to(given["points"].device)
        found = project_features(
            given["points"],
            given["features"],
            moved,
            depth=given.get("depth"),
            normals=given.get("normals"),
            backend=backend,
            **options,
        )
        return {"feats": found.feats, "weight": found.weight.detach(), "views": found.views}

    typed = {key: value.to(dtype) for key, value in inputs.items()}
    gradients = ("features", "points") if points and v else ()
    return Case(name, typed, run, gradients=gradients)
