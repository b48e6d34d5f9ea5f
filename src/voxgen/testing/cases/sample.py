"""Cases of `voxgen.ops.sample`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.sample import sample_nearest, sample_trilinear

from . import Case
from .lookup import random_grid

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def queries(grid: VoxelGrid, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Points in and around the cells of a grid, some on centres, faces and corners, some far away; and their samples."""
    generator = torch.Generator().manual_seed(5)
    samples = torch.randint(max(grid.batch_size, 1), (count,), generator=generator)
    anywhere = torch.rand(count, 3, generator=generator, dtype=torch.float64) * (max(grid.resolution) + 4) - 2
    if len(grid):
        near = torch.randint(len(grid), (count,), generator=generator)
        step = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 0.5
        chosen = torch.rand(count, generator=generator) < 0.8
        anywhere = torch.where(chosen[:, None], grid.cells[near] + step, anywhere)
        samples = torch.where(chosen, grid.batch[near].long(), samples)
    anywhere[::7] = anywhere[::7].round()
    anywhere[3::7] = anywhere[3::7].floor() + 0.5
    if count:
        anywhere[-1] = torch.tensor([1e30, -1e30, 0])
    return anywhere.to(dtype), samples


def case(name: str, grid: VoxelGrid, dtype: torch.dtype, channels: int, count: int, nearest: bool = False) -> Case:
    generator = torch.Generator().manual_seed(2)
    feats = torch.randn(len(grid), channels, generator=generator, dtype=torch.float64).to(dtype)
    points, batch = queries(grid, count, torch.float64 if dtype == torch.float64 else torch.float32)

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        at = grid.to(inputs["feats"].device)
        sampler = sample_nearest if nearest else sample_trilinear
        return {"values": sampler(inputs["feats"], at, inputs["points"], inputs["batch"], backend=backend)}

    inputs = {"feats": feats, "points": points, "batch": batch}
    return Case(name, inputs, run, ("feats",) if nearest else ("feats", "points"))


def cases(dtype: torch.dtype) -> list[Case]:
    empty = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2)
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    three, full = random_grid(9, 3, 250), random_grid(6, 1, 2000)
    return [
        case("empty grid", empty, dtype, 3, 20),
        case("no points", one, dtype, 3, 0),
        case("one cell", one, dtype, 1, 60),
        case("batch of three, one empty", three, dtype, 6, 500),
        case("full grid", full, dtype, 3, 200),
        case("many channels", three, dtype, 67, 40),
        case("too large for a table", random_grid(65536, 3, 500), dtype, 2, 300),
        case("nearest, empty grid", empty, dtype, 3, 20, nearest=True),
        case("nearest, batch of three, one empty", three, dtype, 6, 500, nearest=True),
    ]
