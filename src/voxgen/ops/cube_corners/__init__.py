"""Corners of cells: which there are, which cells share them, means at them, and the corners next to them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._corners import STEPS, CubeCorners, check_capacity

__all__ = ["STEPS", "CubeCorners", "average_at_corners", "corner_deviation", "corner_neighbors", "cube_corners", "values_at_cubes"]

OP = Op(
    "cube_corners",
    [
        Backend("numba", "voxgen.ops.cube_corners._numba:run", (cpu_only,)),
        Backend("torch", "voxgen.ops.cube_corners._torch:run"),
        Backend("reference", "voxgen.ops.cube_corners._reference:run"),
    ],
)


def cube_corners(grid: VoxelGrid, *, backend: str = "auto") -> CubeCorners:
    """All corners of a grid's cells, each once, and which of them each cell has.

    The result is kept on the grid: the first call builds it, whatever its engine, and later ones return the same object.

    Args:
        grid: (n cells), any number of samples. Its cells have (R + 1)³ lattice points at most; keys are int64, so that no
            resolution is too large.
        backend: see docs/backends.md. The result is the same for all of them.
    Returns:
        CubeCorners: `coords` (m, 4), `index` (n, 8), `offsets` (b + 1,).
    Raises:
        CapacityError: 2³¹ cells or more, or a batch of more than 16,383 samples at the largest resolution.
    Empty grid: no corners.   Batch: corners of different samples are different corners.
    Memory: 32 bytes a cell and 16 a corner; a surface has about 1.5 corners a cell, a full volume 1.
    Source: SparseFlex (arXiv 2503.21732), §3.2; corners in the order and numbering of its code.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32), resolution=2)
        >>> cube_corners(grid).index.tolist()
        [[0, 4, 2, 6, 1, 5, 3, 7], [4, 8, 6, 10, 5, 9, 7, 11]]
    """
    check_capacity("cube_corners", grid)
    engine = OP.choose(backend, Call.of(grid.coords)).load()

    def build() -> CubeCorners:
        coords, index = engine("build", grid)
        samples = torch.arange(grid.batch_size + 1, dtype=torch.int32, device=grid.device)
        return CubeCorners(coords, index, torch.searchsorted(coords[:, 0].contiguous(), samples), grid.resolution)

    return grid.cached(("cube_corners",), build)


def corner_neighbors(corners: CubeCorners, *, backend: str = "auto") -> Int64[Tensor, "m 3"]:
    """The row of the corner one step ahead of each corner along x, y and z, -1 where there is none.

    For differences along the axes, such as the total variation of a field at corners. Kept on `corners` after the first call.

    Args:
        corners: of `cube_corners`.
        backend: see docs/backends.md.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0]], dtype=torch.int32), resolution=1)
        >>> corner_neighbors(cube_corners(grid))[:2].tolist()
        [[4, 2, 1], [5, 3, -1]]
    """
    engine = OP.choose(backend, Call.of(corners.coords)).load()
    return corners.cached("neighbors", lambda: engine("neighbors", corners))


def average_at_corners(
    values: Float[Tensor, "n 8 c"], corners: CubeCorners, *, weight: Float[Tensor, " n"] | None = None, backend: str = "auto"
) -> Float[Tensor, "m c"]:
    """The mean at each corner of what the cells that share it say.

    Args:
        values: (n, 8, c) floats: channels of each cell at each of its corners, in the order of `CubeCorners.index`.
        corners: of `cube_corners`, for the grid with these n cells.
        weight: (n,) how much each cell counts, positive; None counts all alike. A cell that was given several times (as the
            released TripoSF does when it decodes in overlapping chunks) enters as the mean of its copies, with their
            number as its weight: that is the mean over all copies.
        backend: see docs/backends.md.
    Returns:
        (m, c) of the dtype of values. Differentiable as often as wanted, in values and weight.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit the corners.
    Empty grid: (0, c).   Batch: a corner belongs to one sample.
    Source: SparseFlex (arXiv 2503.21732), §3.2.
    Numerics: sums of at most eight rows in float32, or float64 for float64, in a fixed order: the same result in each run.
    """
    where = "average_at_corners"
    require_tensor(where, "values", values, ("n", 8, "c"), FLOATS, hint="One value for each of the eight corners of each cell.")
    if len(values) != len(corners.index):
        raise ShapeError(f"{where}: values must have one row for each of the {len(corners.index)} cells; got {tuple(values.shape)}.")
    if weight is not None:
        require_tensor(where, "weight", weight, (len(values),), FLOATS)
    require_same_device(where, values=values, corners=corners.coords, weight=weight)
    engine = OP.choose(backend, Call.of(values, weight)).load()
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    if weight is None:
        mean = engine("sum", wide, corners) / corners.counts[:, None]
    else:
        share = weight.to(wide.dtype)[:, None, None].expand(-1, 8, 1)
        mean = engine("sum", wide * share, corners) / engine("sum", share, corners)
    return mean.to(values.dtype)


def values_at_cubes(values: Float[Tensor, "m c"], corners: CubeCorners, *, backend: str = "auto") -> Float[Tensor, "n 8 c"]:
    """Values of corners at the eight corners of each cell; the way back from `average_at_corners`.

    Args:
        values: (m, c) floats, a row for each corner.
        corners, backend: as in `average_at_corners`.
    Returns:
        (n, 8, c) of the dtype of values. Differentiable as often as wanted; gradients add up in a fixed order.
    Raises:
        ShapeError, DtypeError, DeviceError: values that do not fit the corners.
    """
    where = "values_at_cubes"
    require_tensor(where, "values", values, (len(corners), "c"), FLOATS, hint="One row for each corner.")
    require_same_device(where, values=values, corners=corners.coords)
    engine = OP.choose(backend, Call.of(values)).load()
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return engine("spread", wide, corners).to(values.dtype)


def corner_deviation(
    values: Float[Tensor, "n 8 c"], mean: Float[Tensor, "m c"], corners: CubeCorners, *, backend: str = "auto"
) -> Float[Tensor, "n 8 c"]:
    """What each cell says at its corners, less what all cells that share them say on average.

    The consistency term of SparseFlex is the mean square of this over all entries (sdf and deformation).

    Args:
        values, corners, backend: as in `average_at_corners`.
        mean: its result.
    """
    return values - values_at_cubes(mean, corners, backend=backend)
