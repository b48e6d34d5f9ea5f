"""FlexiCubes on sparse cells: the surface of a field at the corners of cells, open where cells end (SparseFlex)."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import FLOATS, require_choice, require_finite, require_same_device, require_tensor
from voxgen.core.errors import CapacityError, EmptyResultWarning, RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.cube_corners import (
    CubeCorners,
    average_at_corners,
    corner_deviation,
    corner_neighbors,
    cube_corners,
    values_at_cubes,
)

from ._assemble import assemble
from ._problem import Problem, Topology
from ._surface import FlexField, FlexSurface, crossing_deviation

__all__ = [
    "CubeCorners",
    "FlexField",
    "FlexSurface",
    "average_at_corners",
    "corner_deviation",
    "corner_neighbors",
    "crossing_deviation",
    "cube_corners",
    "flexicubes",
    "values_at_cubes",
]

OP = Op(
    "flexicubes",
    [
        Backend("numba", "voxgen.ops.flexicubes._numba:extract", (cpu_only,)),
        Backend("torch", "voxgen.ops.flexicubes._torch:extract"),
        Backend("reference", "voxgen.ops.flexicubes._reference:extract"),
    ],
)
MAX_INDEX = (1 << 31) - 1


def flexicubes(
    grid: VoxelGrid,
    sdf: Float[Tensor, " m"],
    positions: Float[Tensor, "m 3"] | None = None,
    *,
    alpha: Float[Tensor, "n 8"] | None = None,
    beta: Float[Tensor, "n 12"] | None = None,
    gamma: Float[Tensor, " n"] | None = None,
    keep: Bool[Tensor, " n"] | None = None,
    training: bool = False,
    keep_unused: bool | None = None,
    compat: Literal["triposf"] | None = None,
    backend: str = "auto",
) -> FlexSurface:
    """Extract the surface {sdf = 0} of a field known at the corners of a grid's cells, by dual marching cubes with weights.

    A cell whose corners have both signs carries one to four dual vertices: each is the mean, weighted by beta, of the places
    where some of the cell's edges are crossed. Those lie on the line between both ends, where the values times alpha pass 0.
    A crossed edge with all of its four cells joins their dual vertices by a quad.

    Where cells are missing around an edge there is no quad: the surface ends half a cell before the border of the cells,
    and that is how open surfaces are made. Nothing closes it.

    Guarantee: every edge of a quad has one or two quads, so the surface of quads is manifold but for its vertices, and its border lies
    only where a cell is missing. Faces look towards positive values. Positions are wherever the field puts them: a surface may fold.

    Args:
        grid: (n cells), any number of samples.
        sdf: (m,) finite floats at the corners, in the order of `cube_corners(grid)`; negative inside, 0 counts as outside.
        positions: (m, 3) world positions of the corners; None: where the lattice has them. Corners may be moved by up to
            half a cell (SparseFlex's deformation) without cells turning over.
        alpha: (n, 8) positive weights of each cell for its corners; None: ones. Edge e uses those of its two ends.
        beta: (n, 12) positive weights for its edges, in the order of the original (`_table.EDGES`); None: ones.
        gamma: (n,) weights, not negative, for the cut of quads; None: ones. A quad is cut along corners 0–2 if
            γ0·γ2 > γ1·γ3, else along 1–3.
        keep: (n,) which cells to extract; None: all. The result is that part of the whole surface whose quads have all of their
            cells among the kept ones; vertices are the same as in the whole.
        training: put a vertex in the middle of every quad, c = (γ0γ2 (v0 + v2) / 2 + γ1γ3 (v1 + v3) / 2) / (γ0γ2 + γ1γ3), and
            four triangles around it, so that gamma gets a gradient.
        keep_unused: whether vertices stay that no face uses, those of cells at the border; None: only with `compat`.
        compat: "triposf": vertices and faces in the order of the released code; quads around an edge whose first corner is exactly
            0 look backwards, as they do there; 1e-8 is added where centres are divided.
        backend: see docs/backends.md. Integers are the same for all of them.
    Returns:
        FlexSurface: vertices (float32, or float64 if an input is) and faces, packed by sample; differentiable in sdf,
        positions, alpha, beta and (training) gamma. Which edges are crossed has no gradient.
        Order: dual vertices by cell; quads by the last of their four cells and by axis.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit the grid.
        RangeError: values that are not finite, weights that are not positive (gamma: negative).
        CapacityError: 2³¹ vertices or more.
    Warns:
        EmptyResultWarning: there are cells but no face; the message says why.
    Empty grid, no sign change: no vertices and faces; gradients are 0.   Batch: a sample gives the same alone and in a batch.
    Source: T. Shen et al., Flexible isosurface extraction for gradient-based mesh optimization (FlexiCubes, 2023), on sparse
        cells as in SparseFlex (arXiv 2503.21732). Case table by code from the rules of dual marching cubes, G. M. Nielson
        (2004); two cubes with one ambiguous face each that would make an edge with four quads both take the grouping of the
        opposite signs. Differences: see `compat`; unused vertices are left out; no colours, no tetrahedra.
    Numerics: topology from the signs as they are (half types in float32).
    Example:
        >>> from voxgen.testing.grids import full_grid
        >>> grid = full_grid(8)
        >>> corners = cube_corners(grid)
        >>> surface = flexicubes(grid, grid.frame.to_world(corners.coords[:, 1:].float()).norm(dim=1) - 0.3)
        >>> len(surface.vertices) - len(surface.faces) // 2
        2
    """
    where = "flexicubes"
    corners = cube_corners(grid)
    problem = _checked(where, grid, corners, sdf, positions, alpha, beta, keep, compat is not None)
    if compat is not None:
        require_choice(where, "compat", compat, ("triposf",))
    if gamma is not None:
        require_tensor(where, "gamma", gamma, (len(grid),), FLOATS, hint="One weight a cell.")
        require_same_device(where, grid=grid.coords, gamma=gamma)
        require_finite(where, "gamma", gamma)
        if bool((gamma < 0).any()):
            raise RangeError(f"{where}: gamma must not be negative; its smallest value is {float(gamma.min())}.")
        gamma = gamma.to(problem.sdf.dtype)
    call = Call.of(problem.sdf, problem.positions, problem.alpha, problem.beta)
    found, vertices = OP.run(backend, call, problem)
    if len(vertices) + len(found.quads) > MAX_INDEX:
        raise CapacityError(f"{where}: vertices are numbered in int32; got {len(vertices)} and {len(found.quads)} quads. Split the batch.")
    if len(grid) and not len(found.quads):
        warnings.warn(f"{where}: the surface is empty: {_reason(problem, found)}", EmptyResultWarning, stacklevel=2)
    keep_unused = compat is not None if keep_unused is None else keep_unused
    return assemble(problem, found, vertices, gamma, training, compat is not None, keep_unused)


def _checked(
    where: str,
    grid: VoxelGrid,
    corners: CubeCorners,
    sdf: Tensor,
    positions: Tensor | None,
    alpha: Tensor | None,
    beta: Tensor | None,
    keep: Tensor | None,
    strict: bool,
) -> Problem:
    """Check everything that an engine reads, and bring floats to one dtype."""
    m, n = len(corners), len(grid)
    require_tensor(where, "sdf", sdf, (m,), FLOATS, hint="One value a corner, in the order of cube_corners(grid).")
    if positions is not None:
        require_tensor(where, "positions", positions, (m, 3), FLOATS, hint="One world position a corner.")
    for name, weight, width in (("alpha", alpha, 8), ("beta", beta, 12)):
        if weight is not None:
            require_tensor(where, name, weight, (n, width), FLOATS)
    if keep is not None:
        require_tensor(where, "keep", keep, (n,), (torch.bool,))
    require_same_device(where, grid=grid.coords, sdf=sdf, positions=positions, alpha=alpha, beta=beta, keep=keep)
    dtype = torch.float32
    for name, value in (("sdf", sdf), ("positions", positions), ("alpha", alpha), ("beta", beta)):
        if value is not None:
            require_finite(where, name, value)
            dtype = torch.promote_types(dtype, value.dtype)
    for name, weight in (("alpha", alpha), ("beta", beta)):
        if weight is not None and bool((weight <= 0).any()):
            raise RangeError(f"{where}: {name} must be positive; its smallest value is {float(weight.min())}. Raw channels? Activate them.")
    placed = grid.frame.to_world(corners.coords[:, 1:].to(dtype)) if positions is None else positions.to(dtype)
    a, b = (None if w is None else w.to(dtype) for w in (alpha, beta))
    return Problem(grid, corners, sdf.to(dtype), placed, a, b, keep, strict)


def _reason(problem: Problem, found: Topology) -> str:
    if len(found.cell):
        return "cells have corners of both signs, but no edge that changes sign has all of its four cells. Are cells missing on one side?"
    if problem.keep is not None and bool(((found.case != 0) & (found.case != 255)).any()):
        return "no cell that is kept has corners of both signs."
    side = "negative (inside)" if bool((problem.sdf < 0).all()) else "positive or 0 (outside)"
    if bool((problem.sdf < 0).any()) and side.startswith("pos"):
        return "no cell has corners of both signs."
    return f"all corners are {side}. A field that begins like this has no surface to learn from; train its values first."
