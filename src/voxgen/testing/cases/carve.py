"""Cases of `voxgen.ops.carve`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Camera, Frame, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.ops.carve import carve_by_depth
from voxgen.testing.grids import full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float64)


def _camera(views: int, width: int = 24, height: int = 20, seed: int = 0, **options: Any) -> Camera:
    eyes = torch.randn(views, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Camera.look_at(2 * torch.nn.functional.normalize(eyes, dim=1), width=width, height=height, **options)


def ball_depth(camera: Camera, dtype: torch.dtype, radius: float = 0.4) -> Tensor:
    """(v, h, w) exact depth of a ball around the origin, for perspective cameras; infinite beside it."""
    k = camera.intrinsics.double()
    rows, columns = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    x = (columns - k[:, 0, 2, None, None]) / k[:, 0, 0, None, None]
    y = (rows - k[:, 1, 2, None, None]) / k[:, 1, 1, None, None]
    ray = torch.stack((x, y, torch.ones_like(x)), -1)
    center = camera.world_to_camera[:, None, None, :3, 3].double()
    a, b = ray.square().sum(-1), (ray * center).sum(-1)
    under = b.square() - a * (center.square().sum(-1) - radius**2)
    return torch.where(under > 0, (b - under.clamp(min=0).sqrt()) / a, math.inf).to(dtype)


def cases(dtype: torch.dtype) -> list[Case]:
    ball = _camera(3, near=1.0, far=3.0)
    depth = ball_depth(ball, dtype)
    grid = random_grid([300], 16)
    batch = random_grid([60, 0, 90], 12, seed=1)
    flat = _camera(2, seed=2, orthographic_height=1.2, near=-1.0, far=3.0)
    level = torch.where(torch.rand(2, 20, 24, generator=torch.Generator().manual_seed(3)) < 0.7, 1.95, math.inf).to(dtype)
    inside = _camera(1, seed=4, near=0.05)
    inside = Camera(inside.world_to_camera.clone(), inside.intrinsics, 24, 20, 0.05)
    inside.world_to_camera[:, :3, 3] = 0.1
    odd, _ = VoxelGrid.build(
        random_grid([200], (9, 17, 12)).coords, resolution=(9, 17, 12), frame=Frame((-0.4, -0.6, -0.5), (0.1, 0.07, 0.08))
    )
    shown = torch.tensor([2, 0, 2])
    return [
        _case("ball", grid, ball, depth),
        _case("full grid, no ring, no cover", full_grid(10), ball, depth, dilate=0, cover=False),
        _case("two rings, reach of a quarter", grid, ball, depth, dilate=2, reach=0.25),
        _case("as printed", grid, ball, depth, rule="paper", dilate=0),
        _case("margin without bound", grid, ball, depth, margin=math.inf),
        _case("batch of three, one empty", batch, ball, depth, sample=shown, cover=False),
        _case("orthographic", grid, flat, level),
        _case("camera inside", grid, inside, torch.full((1, 20, 24), 0.2, dtype=dtype), reach=2.5),
        _case("cells that are no cubes", odd, ball, depth, dilate=0),
        _case("float32 camera", grid, _single(ball), depth),
        _case("one cell", full_grid(1), ball, depth),
        _case("empty grid", random_grid([0], 8), ball, depth),
        _case("no view", grid, ball[0:0], depth[0:0]),
    ]


def _single(camera: Camera) -> Camera:
    return Camera(camera.world_to_camera.float(), camera.intrinsics.float(), camera.width, camera.height, camera.near, camera.far)


def _case(name: str, grid: VoxelGrid, camera: Camera, depth: Tensor, **options: Any) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        device = inputs["depth"].device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyResultWarning)
            found = carve_by_depth(grid.to(device), inputs["depth"], camera.to(device), backend=backend, **options)
        return {"mask": found.mask, "coverage": found.coverage}

    return Case(name, {"depth": depth}, run)
