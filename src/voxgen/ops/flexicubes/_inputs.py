"""Checks of a field on the corners of cells, and the call of an engine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core.checks import FLOATS, require_finite, require_same_device, require_tensor
from voxgen.core.errors import CapacityError, RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Call, Op
from voxgen.ops.cube_corners import cube_corners

from ._assemble import gamma_products
from ._problem import Problem, Topology

MAX_INDEX = (1 << 31) - 1


class FlexInputs(NamedTuple):
    """A field on a grid of n cells with m corners; the arguments of `flexicubes` of these names."""

    sdf: Tensor
    positions: Tensor | None = None
    alpha: Tensor | None = None
    beta: Tensor | None = None
    gamma: Tensor | None = None


def check(where: str, grid: VoxelGrid, inputs: FlexInputs, keep: Tensor | None, *, strict: bool) -> Problem:
    """Raise unless all fits the grid; bring floats to one dtype."""
    corners, n = cube_corners(grid), len(grid)
    shapes = {"sdf": (len(corners),), "positions": (len(corners), 3), "alpha": (n, 8), "beta": (n, 12), "gamma": (n,)}
    hints = {"sdf": "One value a corner, in the order of cube_corners(grid).", "positions": "One world position a corner."}
    present: dict[str, Tensor] = {}
    for name, value in inputs._asdict().items():
        if value is not None or name == "sdf":
            present[name] = require_tensor(where, name, value, shapes[name], FLOATS, hint=hints.get(name, ""))
    if keep is not None:
        require_tensor(where, "keep", keep, (n,), (torch.bool,))
    require_same_device(where, grid=grid.coords, keep=keep, **present)
    dtype = torch.float32
    for name, value in present.items():
        require_finite(where, name, value)
        dtype = torch.promote_types(dtype, value.dtype)
        least = float(value.detach().min()) if value.numel() else 1.0
        if name in ("alpha", "beta") and least <= 0:
            raise RangeError(f"{where}: {name} must be positive; its smallest value is {least:g}. Raw channels? Activate them first.")
        if name == "gamma" and least < 0:
            raise RangeError(f"{where}: gamma must not be negative; its smallest value is {least:g}. Raw channels? Activate them first.")
    wide = FlexInputs(**{name: value.to(dtype) for name, value in present.items()})
    placed = grid.frame.to_world(corners.coords[:, 1:].to(dtype)) if wide.positions is None else wide.positions
    return Problem(grid, corners, wide.sdf, placed, wide.alpha, wide.beta, keep, strict)


def run(op: Op, backend: str, where: str, problem: Problem, gamma: Tensor | None) -> tuple[Topology, Tensor, Tensor]:
    """Topology, vertices, and the products of gamma along both diagonals of each quad."""
    call = Call.of(problem.sdf, problem.positions, problem.alpha, problem.beta)
    found, vertices = op.run(backend, call, problem)
    require_index(where, len(vertices) + len(found.quads))
    return found, vertices, gamma_products(found, None if gamma is None else gamma.to(problem.sdf.dtype), problem.sdf.dtype)


def require_index(where: str, vertices: int) -> None:
    if vertices > MAX_INDEX:
        raise CapacityError(f"{where}: vertices are numbered in int32; got {vertices}, counting the middles of quads. Split the batch.")


def reason(problem: Problem, found: Topology) -> str:
    """Why there is no quad."""
    if len(found.cell):
        return "cells have corners of both signs, but no edge that changes sign has all of its four cells. Are cells missing on one side?"
    if problem.keep is not None and bool(((found.case != 0) & (found.case != 255)).any()):
        return "no cell that is kept has corners of both signs."
    inside = problem.sdf < 0
    if bool(inside.any()) and not bool(inside.all()):
        return "no cell has corners of both signs."
    side = "negative (inside)" if bool(inside.any()) else "positive or 0 (outside)"
    return f"all corners are {side}. A field that begins like this has no surface to learn from; train its values first."
