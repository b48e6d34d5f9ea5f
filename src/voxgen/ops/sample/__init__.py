"""Features of a sparse volume at points in space: trilinear between the centres of cells, or those of the cell around."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from voxgen.core.aliases import Feats, Points
from voxgen.core.checks import FLOATS, require_choice, require_finite, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Call, Op, cpu_only

__all__ = ["sample_nearest", "sample_trilinear"]

OP = Op(
    "sample",
    [
        Backend("numba", "voxgen.ops.sample._numba:sample", (cpu_only,)),
        Backend("torch", "voxgen.ops.sample._torch:sample"),
        Backend("reference", "voxgen.ops.sample._reference:sample"),
    ],
)


def sample_trilinear(
    feats: Feats,
    grid: VoxelGrid,
    points: Points,
    batch: Tensor | None = None,
    *,
    compat: Literal["trellis2"] | None = None,
    backend: str = "auto",
) -> Feats:
    """Interpolate features between the centres of the eight cells around each point.

    With q the point, weights w_i = Π_a (1 − |q_a − i_a − 0.5|) of the cells i around it (i = floor(q − 0.5) + {0, 1}³), and
    the sums over those of them that exist: result = Σ w_i f_i / max(Σ w_i, 1e-12). So a cell that does not exist leaves its
    share to the others, a constant volume gives its constant up to its border, and a point without any cell around gives 0.

    Args:
        feats: (n, c) floats, row i belongs to cell i of the grid.
        grid: (n cells).
        points: (p, 3) float32 or float64 in index units: cell (i, j, k) has its centre at (i, j, k) + 0.5
            (`Frame.to_index` brings world points there). Points may lie anywhere.
        batch: (p,) int64 or int32, the sample that each point reads; None where the grid is a batch of one.
        compat: "trellis2" gives no gradient to the points.
        backend: see docs/backends.md.
    Returns:
        (p, c) in the dtype of feats. Differentiable once in feats, and in points unless compat says otherwise: the
        derivative of the formula, cells that exist taken as they are. It is 0 where Σ w is at most 1e-12, jumps where a
        point passes the centre of a cell, and is large where a point leaves the last of several cells around it.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
        RangeError: a point that is not finite, a sample that does not exist, or no batch for a grid of several samples.
    Empty grid: all 0. No points: (0, c).   Batch: a point sees only its own sample.
    Source: TRELLIS.2 (arXiv 2512.14692), sampling of the material volume. Differences: the gradient to the points.
    Numerics: weights in the dtype of points; sums in float32, or float64 for float64 feats. The same result in each run.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32), resolution=2)
        >>> sample_trilinear(torch.tensor([[1.0], [3.0]]), grid, torch.tensor([[1.0, 0.5, 0.5], [9.0, 0.0, 0.0]]))
        tensor([[2.],
                [0.]])
    """
    where = "sample_trilinear"
    batch = _checked(where, feats, grid, points, batch, compat)
    read = points.detach() if compat == "trellis2" else points
    return OP.run(backend, Call.of(feats, read), "trilinear", feats, grid, read, batch)


def sample_nearest(
    feats: Feats,
    grid: VoxelGrid,
    points: Points,
    batch: Tensor | None = None,
    *,
    compat: Literal["trellis2"] | None = None,
    backend: str = "auto",
) -> Feats:
    """Read the features of the cell that each point lies in; 0 where it does not exist.

    Args:
        feats, grid, points, batch, backend: as in `sample_trilinear`. Point q lies in cell floor(q).
        compat: "trellis2" rounds towards zero instead, so that points with coordinates in (−1, 0), outside of the grid,
            read cell 0.
    Returns:
        (p, c) in the dtype of feats. Differentiable in feats; constant in points.
    Raises:
        As `sample_trilinear`.
    Source: TRELLIS.2, sampling in nearest mode. Differences: floor instead of truncation, unless compat asks for that.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32), resolution=2)
        >>> sample_nearest(torch.tensor([[1.0], [3.0]]), grid, torch.tensor([[1.9, 0.5, 0.5], [-0.1, 0.0, 0.0]]))
        tensor([[3.],
                [0.]])
    """
    where = "sample_nearest"
    batch = _checked(where, feats, grid, points, batch, compat)
    kind = "truncated" if compat == "trellis2" else "nearest"
    return OP.run(backend, Call.of(feats, points.detach()), kind, feats, grid, points.detach(), batch)


def _checked(where: str, feats: Tensor, grid: VoxelGrid, points: Tensor, batch: Tensor | None, compat: str | None) -> Tensor:
    """Check everything; return the sample of each point."""
    require_tensor(where, "feats", feats, ("n", "c"), FLOATS)
    require_tensor(
        where, "points", points, ("p", 3), (torch.float32, torch.float64), hint="Batched points (b, l, 3)? Flatten them and give batch."
    )
    if len(feats) != len(grid):
        raise ShapeError(f"{where}: feats must have one row for each of the grid's {len(grid)} cells; got {tuple(feats.shape)}.")
    if batch is not None:
        require_tensor(where, "batch", batch, (len(points),), (torch.int64, torch.int32))
    require_same_device(where, grid=grid.coords, feats=feats, points=points, batch=batch)
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
    require_finite(where, "points", points)
    if batch is None:
        if grid.batch_size != 1 and len(points) > 0:
            raise RangeError(f"{where}: batch must say which of the {grid.batch_size} samples of the grid each point reads; got None.")
        return torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if len(batch) > 0 and not (int(batch.min()) >= 0 and int(batch.max()) < grid.batch_size):
        raise RangeError(
            f"{where}: batch must lie in [0, {grid.batch_size}), the samples of the grid; got values from {int(batch.min())} to "
            f"{int(batch.max())}."
        )
    return batch.long()
