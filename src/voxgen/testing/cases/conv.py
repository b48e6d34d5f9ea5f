"""Inputs of `sparse_conv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.conv import sparse_conv
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """Kinds of tables, and channel counts that fit no tile. Small, because an interpreter of GPU code also runs them."""
    three = random_grid((28, 0, 17), 9)
    return [
        _case(dtype, "empty", random_grid((0, 0), 8), 4, 5),
        _case(dtype, "one-cell", random_grid((1,), 1), 3, 2),
        _case(dtype, "no-neighbours", VoxelGrid.from_sorted(_spread(5), resolution=16, batch_size=1), 4, 4),
        _case(dtype, "three-samples", three, 16, 32),
        _case(dtype, "odd-channels-67-3", three, 67, 3),
        _case(dtype, "odd-channels-1-67", three, 1, 67),
        _case(dtype, "without-bias", three, 8, 8, bias=False),
        _case(dtype, "full-cube", full_grid(4), 5, 6),
        _case(dtype, "kernel-1", three, 6, 10, kernel_size=1),
        _case(dtype, "kernel-3-1-5-dilated", three, 6, 6, kernel_size=(3, 1, 5), dilation=(1, 2, 3)),
        _case(dtype, "down-2", three, 6, 12, kernel_size=2, stride=2),
        _case(dtype, "down-3-window", three, 6, 12, stride=2, sites="window"),
        _case(dtype, "generative", random_grid((6, 0, 5), 9), 12, 6, kernel_size=2, stride=2, transposed=True),
        _case(dtype, "wide", three, 40, 48),
    ]


def _case(dtype: torch.dtype, name: str, grid: VoxelGrid, channels_in: int, channels_out: int, bias: bool = True, **options: Any) -> Case:
    generator = torch.Generator().manual_seed(len(grid) + 100 * channels_in)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    table = neighbor_table(grid, **options)
    inputs = {
        "feats": noise(channels_in, len(grid)).T,  # not contiguous
        "weight": (noise(table.volume, channels_in, channels_out).double() / (4 * channels_in) ** 0.5).to(dtype),
    }
    if bias:
        inputs["bias"] = noise(channels_out)

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = neighbor_table(fresh(grid).to(given["feats"].device), **options)
        return {"out": sparse_conv(given["feats"], given["weight"], given.get("bias"), moved, backend=backend)}

    return Case(name, inputs, run, gradients=tuple(inputs), facts=table.facts)


def _spread(count: int) -> Tensor:
    """Cells on a diagonal, three apart."""
    steps = 3 * torch.arange(count, dtype=torch.int32)
    return torch.stack((torch.zeros_like(steps), steps, steps, steps), 1)
