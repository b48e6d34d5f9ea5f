"""FlexiCubes on sparse cells: the surface of a field at the corners of cells, open where cells end (SparseFlex)."""

from __future__ import annotations

import warnings
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import require_choice
from voxgen.core.errors import EmptyResultWarning
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Op, cpu_only
from voxgen.ops.cube_corners import (
    CubeCorners,
    average_at_corners,
    corner_deviation,
    corner_neighbors,
    cube_corners,
    values_at_cubes,
)

from ._assemble import Options, assemble
from ._inputs import FlexInputs, check, reason, run
from ._slabs import flexicubes_in_slabs
from ._surface import FlexField, FlexSurface, crossing_deviation

__all__ = [
    "CubeCorners",
    "FlexField",
    "FlexInputs",
    "FlexSurface",
    "average_at_corners",
    "corner_deviation",
    "corner_neighbors",
    "crossing_deviation",
    "cube_corners",
    "flexicubes",
    "flexicubes_in_slabs",
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
    if compat is not None:
        require_choice(where, "compat", compat, ("triposf",))
    options = Options(training, compat is not None, compat is not None if keep_unused is None else keep_unused)
    inputs = FlexInputs(sdf, positions, alpha, beta, gamma)
    problem = check(where, grid, inputs, keep, strict=compat is not None)
    found, vertices, products = run(OP, backend, where, problem, inputs.gamma)
    if len(grid) and not len(found.quads):
        warnings.warn(f"{where}: the surface is empty: {reason(problem, found)}", EmptyResultWarning, stacklevel=2)
    return assemble(grid, found, vertices, products, FlexField(problem.corners.index, problem.sdf, problem.positions), options)
