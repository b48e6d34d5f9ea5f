"""Cases of `voxgen.ops.dual_faces`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.ops.dual_faces import dual_faces
from voxgen.testing.shells import Shell, ball, hollow_ball, shell

from . import Case
from .lookup import random_grid

DTYPES = (torch.float32, torch.float64)


def noise(grid: VoxelGrid, dtype: torch.dtype, seed: int = 0) -> dict[str, Any]:
    """Random inputs for a grid: vertices that leave their cells, many of them exactly on a corner; flags in no relation to the cells."""
    generator = torch.Generator().manual_seed(seed)
    dual = torch.rand(len(grid), 3, generator=generator, dtype=torch.float64) * 2 - 0.5
    return {
        "dual": torch.where(dual < -0.2, 0.0, torch.where(dual > 1.2, 1.0, dual)).to(dtype),
        "intersected": torch.rand(len(grid), 3, generator=generator) < 0.5,
        "crossing_sign": torch.rand(len(grid), 3, generator=generator) < 0.5,
        "split_weight": (torch.rand(len(grid), generator=generator, dtype=torch.float64) * 4).ceil().to(dtype) / 2,
    }


def batched(shells: list[Shell]) -> tuple[VoxelGrid, dict[str, Any]]:
    """Several shells of one resolution in one batch, with split weights."""
    grid = VoxelGrid.batched([s.grid for s in shells])
    dual, intersected, sign = (torch.cat(parts) for parts in list(zip(*shells, strict=True))[1:])
    weight = torch.rand(len(grid), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    return grid, {"dual": dual, "intersected": intersected, "crossing_sign": sign, "split_weight": weight}


def empty_shell(resolution: int) -> Shell:
    grid = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=resolution, batch_size=1)
    flags = torch.zeros(0, 3, dtype=torch.bool)
    return Shell(grid, torch.zeros(0, 3), flags, flags)


def case(name: str, grid: VoxelGrid, inputs: Mapping[str, Tensor], dtype: torch.dtype, **options: Any) -> Case:
    gradients = ("dual", *(("split_weight",) if "split_weight" in inputs and options.get("training") else ()))

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        mesh = dual_faces(grid.to(inputs["dual"].device), **inputs, **options, backend=backend)
        return {
            "vertices": mesh.vertices,
            "faces": mesh.faces,
            "vertex_offsets": mesh.vertex_offsets,
            "face_offsets": mesh.face_offsets,
            "vertex_row": mesh.vertex_row,
            "quads": mesh.quads.rows,
            "quad_axis": mesh.quads.axis,
            "dropped": mesh.quads.dropped,
        }

    return Case(name, {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs.items()}, run, gradients)


def cases(dtype: torch.dtype) -> list[Case]:
    frame = Frame((-1.0, -0.5, 0.25), (0.3, 0.125, 0.25), "z")
    flat = VoxelGrid(random_grid(6, 3, 400).coords, (6, 6, 6), 3, frame)
    three, closed = batched([shell(hollow_ball, 16), empty_shell(16), shell(ball, 16)])
    loose = noise(flat, dtype)
    plain = {n: loose[n] for n in ("dual", "intersected")}
    unsigned = {n: t for n, t in loose.items() if n != "crossing_sign"}
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    none = empty_shell(8).grid
    nothing = VoxelGrid.from_sorted(none.coords, resolution=8, batch_size=0)
    edge = torch.cartesian_prod(torch.zeros(1), *[torch.tensor([0.0, 65534.0, 65535.0])] * 3).int()
    border = VoxelGrid.from_sorted(edge, resolution=65536, batch_size=1)
    return [
        case("empty grid", none, noise(none, dtype), dtype),
        case("empty batch", nothing, noise(nothing, dtype), dtype, training=True),
        case("one cell", one, noise(one, dtype), dtype),
        case("batch of three, one empty: weights", three, closed, dtype),
        case("batch of three, one empty: angles", three, closed, dtype, split="angle"),
        case("batch of three, one empty: training", three, closed, dtype, training=True),
        case("noise: weights, ties", flat, loose, dtype),
        case("noise: angles", flat, loose, dtype, split="angle"),
        case("noise: first", flat, plain, dtype, split="first", keep_unused=True),
        case("noise: compat", flat, plain, dtype, compat="trellis2"),
        case("noise: compat with weights", flat, unsigned, dtype, compat="trellis2"),
        case("noise: training", flat, loose, dtype, training=True),
        case("noise: training without weights, all vertices", flat, plain, dtype, training=True, keep_unused=True),
        case("border of the largest grid", border, noise(border, dtype), dtype, split="angle"),
    ]
