"""Cases of `voxgen.ops.flexicubes`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.ops.flexicubes import cube_corners, flexicubes
from voxgen.testing.grids import full_grid, random_grid
from voxgen.testing.shells import ball, ring

from . import Case

DTYPES = (torch.float32, torch.float64)


def noise(grid: VoxelGrid, seed: int = 0, ties: bool = False) -> dict[str, Tensor]:
    """Random values, corners and weights: every case, problematic pairs, ends of the surface; with `ties` some values exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    corners = cube_corners(grid)
    m, n = len(corners), len(grid)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sdf = normal(m)
    sdf = (sdf * 3).round() / 3 if ties else sdf.sign() * (0.05 + sdf.abs())
    size = torch.tensor(grid.frame.voxel_size, dtype=torch.float64)
    return {
        "sdf": sdf,
        "positions": grid.frame.to_world(corners.coords[:, 1:].double()) + 0.5 * size * normal(m, 3).tanh(),
        "alpha": 1 + 0.8 * normal(n, 8).tanh(),
        "beta": 1 + 0.8 * normal(n, 12).tanh(),
        "gamma": 0.99 * normal(n).sigmoid() + 0.005,
    }


def solid(grid: VoxelGrid) -> dict[str, Tensor]:
    """A ball in sample 0, a ring in the others, as distances in the unit cube."""
    corners = cube_corners(grid).coords
    points = corners[:, 1:].double() / torch.tensor(grid.resolution) - 0.5
    return {"sdf": torch.where(corners[:, 0] == 0, ball(points, 0.35), ring(points))}


def case(name: str, grid: VoxelGrid, inputs: Mapping[str, Tensor], dtype: torch.dtype, *, part: bool = False, **options: Any) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        at = grid.to(inputs["sdf"].device)
        keep = at.coords.sum(1) % 5 != 0 if part else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyResultWarning)
            found = flexicubes(at, **inputs, **options, keep=keep, backend=backend)  # pyright: ignore[reportArgumentType]
        return {
            "vertices": found.vertices,
            "faces": found.faces,
            "quads": found.quads,
            "vertex_cell": found.vertex_cell,
            "vertex_edges": found.vertex_edges,
            "vertex_offsets": found.vertex_offsets,
            "face_offsets": found.face_offsets,
            "deviation": found.deviation(),
        }

    gradients = tuple(n for n in inputs if n != "gamma" or options.get("training"))
    # differences of distances, in float32 2.2e-5 of the largest
    tolerance = {"deviation": 1e-4} if dtype == torch.float32 else {}
    return Case(name, {n: t.to(dtype) for n, t in inputs.items()}, run, gradients, tolerance=tolerance)


def cases(dtype: torch.dtype) -> list[Case]:
    frame = Frame((-1.0, -0.5, 0.25), (0.3, 0.125, 0.25), "z")
    none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2)
    nothing = VoxelGrid.from_sorted(none.coords, resolution=8, batch_size=0)
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    full, sparse = full_grid(6), random_grid((260, 0, 330), 8)
    placed = VoxelGrid(full_grid((5, 6, 4), 2).coords, (5, 6, 4), 2, frame)
    body = full_grid(10, 2)
    edge = torch.cartesian_prod(torch.zeros(1), *[torch.tensor([65533.0, 65534.0, 65535.0])] * 3).int()
    near = Frame((-65533.0, -65533.0, -65533.0), (1.0, 1.0, 1.0))  # a cell of the unit cube would be 256 units of rounding wide
    border = VoxelGrid.from_sorted(edge, resolution=65536, batch_size=1, frame=near)
    positive = {"sdf": torch.ones(len(cube_corners(full)), dtype=torch.float64)}
    field = {name: noise(sparse)[name] for name in ("sdf", "positions")}
    return [
        case("empty grid", none, noise(none), dtype),
        case("empty batch", nothing, noise(nothing), dtype, training=True),
        case("no sign change", full, positive, dtype, training=True),
        case("one cell", one, noise(one), dtype, keep_unused=True),
        case("noise", full, noise(full), dtype),
        case("noise, training", full, noise(full, 1), dtype, training=True),
        case("noise in missing cells, one sample empty", sparse, noise(sparse), dtype),
        case("noise in missing cells, training", sparse, noise(sparse), dtype, training=True),
        case("noise, part of it", sparse, noise(sparse, 2), dtype, part=True, training=True, keep_unused=True),
        case("without weights", sparse, field, dtype, training=True),
        case("ties", sparse, noise(sparse, 3, ties=True), dtype),
        case("ties, original", sparse, noise(sparse, 3, ties=True), dtype, compat="triposf", training=True),
        case("uneven frame", placed, noise(placed), dtype),
        case("ball and ring", body, solid(body), dtype, training=True),
        case("border of the largest grid", border, noise(border), dtype, keep_unused=True),
    ]
