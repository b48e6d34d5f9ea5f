"""The scene of the golden `focusing_formulas`: a ball of radius 0.4 seen from z = 2, every cell it touches at 32³, exact depths."""

from __future__ import annotations

import torch
from torch import Tensor

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera, VoxelGrid
from voxgen.testing.cases.carve import ball_depth

GOLDEN = Golden.read("focusing_formulas")
FACTS = GOLDEN.about["facts"]


def out(name: str) -> Tensor:
    return GOLDEN.arrays[f"out/{name}"]


def scene() -> tuple[VoxelGrid, Tensor, Camera]:
    """Grid, depth (1, 128, 128) infinite beside the ball, camera."""
    cells = torch.nn.functional.pad(out("carve/voxels").int(), (1, 0))
    c = GOLDEN.configuration
    eye = torch.tensor([[0.0, 0.0, c["camera_distance"]]], dtype=torch.float64)
    camera = Camera.look_at(eye, fov=c["fov"], width=c["image"], height=c["image"], near=c["near"], far=c["far"])
    return VoxelGrid.from_sorted(cells, resolution=c["resolution"], batch_size=1), ball_depth(camera, torch.float64), camera
