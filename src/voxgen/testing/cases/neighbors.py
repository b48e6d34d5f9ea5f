"""Inputs of `neighbor_table`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32,)


def cases(dtype: torch.dtype) -> list[Case]:
    """Footprints of all kinds on small grids."""
    three = random_grid((60, 0, 41), 17)
    far = random_grid((50,), (65536, 300, 65536), seed=3)
    return [
        _case("empty", random_grid((0, 0), 8)),
        _case("empty-batch", random_grid((), 8)),
        _case("one-cell", random_grid((1,), 1)),
        _case("full-9", full_grid(9, 2)),
        _case("three-samples", three),
        _case("kernel-5", three, kernel_size=5),
        _case("kernel-3-1-5-dilated", three, kernel_size=(3, 1, 5), dilation=(1, 2, 3)),
        _case("beyond-the-guard", three, kernel_size=5, dilation=6),
        _case("huge-resolution", far, kernel_size=3, dilation=(5, 1, 1)),
        _case("off-centre", three, padding=(0, 1, 2)),
        _case("down-2", three, kernel_size=2, stride=2),
        _case("down-3-2", three, kernel_size=3, stride=2),
        _case("down-2-3-1", three, kernel_size=(2, 3, 1), stride=(2, 3, 1)),
        _case("window", three, kernel_size=3, stride=2, sites="window"),
        _case("window-unpadded", three, kernel_size=3, stride=2, padding=0, sites="window"),
        _case("dilating", three, sites="window"),
        _case("generative", three, kernel_size=2, stride=2, transposed=True),
        _case("generative-3", three, kernel_size=3, stride=2, transposed=True),
        _case("transposed-dilated", three, kernel_size=3, stride=2, dilation=2, transposed=True),
    ]


def _case(name: str, grid: VoxelGrid, **options: Any) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = fresh(grid).to(inputs["coords"].device)
        table = neighbor_table(moved, backend=backend, **options)
        return {"table": table.table, "transposed": table.transposed().table, "outputs": table.out_grid.coords}

    return Case(name, {"coords": grid.coords}, run)
