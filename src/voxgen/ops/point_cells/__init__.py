"""Which cells of a grid points lie in, with a skin around them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Int3, Offsets, Points
from voxgen.core.batching import batch_index
from voxgen.core.checks import describe, require_finite, require_int3, require_same_device, require_tensor
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.frame import Frame
from voxgen.ops._registry import Backend, Call, Op, cpu_only

__all__ = ["point_cells"]

OP = Op(
    "point_cells",
    [
        Backend("numba", "voxgen.ops.point_cells._numba:point_cells", (cpu_only,)),
        Backend("reference", "voxgen.ops.point_cells._reference:point_cells"),
    ],
)


def point_cells(
    points: Points,
    resolution: int | Int3,
    *,
    offsets: Offsets | None = None,
    frame: Frame | None = None,
    skin: float = 0.0,
    inset: float = 1e-6,
    backend: str = "auto",
) -> VoxelGrid:
    """The grid of all cells that hold a point, or a point moved by `skin` cells along any of the 26 directions of a cube.

    Args:
        points: (p, 3) float32 or float64, world units.
        resolution: cells along the axes.
        offsets: (b + 1,) int64 bounds of the samples among the points; None is one sample.
        frame: index ↔ world; None is the unit cube.
        skin: by how much each point is moved along each axis, to −skin, 0 and skin, in cells; >= 0.
        inset: moved points are brought inside the box, to this share of its side from its faces.
        backend: see docs/backends.md.
    Returns:
        VoxelGrid on the points' device. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments of a wrong kind.   RangeError: a point that is not finite, a skin or an
        inset that makes no sense.
    No points: a grid without cells.
    Numerics: float64.
    Source: TripoSF, preparation of point clouds: skin = R / (4 R − 1) cells, inset 1e-6.
    Example:
        >>> point_cells(torch.tensor([[0.01, 0.01, 0.01]]), 4).coords.tolist(), len(point_cells(torch.zeros(1, 3), 4, skin=0.25))
        ([[0, 2, 2, 2]], 8)
    """
    where = "point_cells"
    require_tensor(where, "points", points, ("p", 3), (torch.float32, torch.float64))
    cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    for name, value, limit in (("skin", skin, math.inf), ("inset", inset, 0.5)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < limit:
            raise RangeError(f"{where}: {name} must be a number from 0 to {limit}; got {describe(value)}.")
    bounds = torch.tensor([0, len(points)], device=points.device) if offsets is None else offsets
    require_tensor(where, "offsets", bounds, ("b + 1",), (torch.int64,))
    require_same_device(where, points=points, offsets=bounds)
    if len(bounds) < 1 or int(bounds[0]) != 0 or int(bounds[-1]) != len(points) or bool((bounds.diff() < 0).any()):
        raise ShapeError(f"{where}: offsets must ascend from 0 to the number of points, {len(points)}; got {bounds.tolist()}.")
    require_finite(where, "points", points)
    space = frame or Frame.unit(cells)
    batch = batch_index(bounds, torch.int32)
    coords: Tensor = OP.run(backend, Call.of(points), points.detach(), batch, len(bounds) - 1, space, cells, float(skin), float(inset))
    return VoxelGrid.from_sorted(coords, resolution=cells, batch_size=len(bounds) - 1, frame=space)
