"""Frame: how cell indices map to world space."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from .aliases import Cells, Float3, Int3, Points
from .checks import require_choice, require_int3
from .coords import MAX_RESOLUTION
from .errors import FrameError, RangeError

UpAxis = Literal["y", "z"]

FIT_SCALE = 0.99999
"""A fitted mesh fills this share of the box. Not 1: a boundary on the upper face of the box belongs to no cell."""


@dataclass(frozen=True)
class Frame:
    """Axis-aligned, right-handed map between the index frame of a grid and world space.

    Cell (i, j, k) covers `origin + [i, i + 1) * voxel_size` along x, and likewise along y and z; its centre lies at
    `origin + (i + 0.5) * voxel_size`.

    Args:
        origin: world position of the lowest corner of cell (0, 0, 0).
        voxel_size: world length of a cell along each axis, positive.
        up: which world axis points up, "y" (glTF) or "z". A label that travels from import to export; it rotates nothing.
    Raises:
        RangeError: a voxel size that is not positive and finite, an origin that is not finite, an unknown axis.
    Example:
        >>> Frame.unit(64).voxel_size
        (0.015625, 0.015625, 0.015625)
    """

    origin: Float3
    voxel_size: Float3
    up: UpAxis = field(default="y")

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", tuple(float(v) for v in self.origin))
        object.__setattr__(self, "voxel_size", tuple(float(v) for v in self.voxel_size))
        if len(self.origin) != 3 or not all(map(math.isfinite, self.origin)):
            raise RangeError(f"Frame: origin must be three finite numbers; got {self.origin}.")
        if len(self.voxel_size) != 3 or not all(math.isfinite(v) and v > 0 for v in self.voxel_size):
            raise RangeError(f"Frame: voxel_size must be three positive finite numbers; got {self.voxel_size}.")
        require_choice("Frame", "up", self.up, ("y", "z"))

    @staticmethod
    def unit(resolution: int | Int3, up: UpAxis = "y") -> Frame:
        """The cube [-0.5, 0.5]³ divided in `resolution` cells an axis."""
        return Frame.box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), resolution, up)

    @staticmethod
    def box(low: Float3, high: Float3, resolution: int | Int3, up: UpAxis = "y") -> Frame:
        """The box from `low` to `high` divided in `resolution` cells an axis."""
        cells = require_int3("Frame.box", "resolution", resolution, 1, MAX_RESOLUTION)
        size = tuple((b - a) / n for a, b, n in zip(low, high, cells, strict=True))
        if not all(v > 0 for v in size):
            raise RangeError(f"Frame.box: high must exceed low on every axis; got low={low}, high={high}.")
        return Frame(low, cast(Float3, size), up)

    @staticmethod
    def fit(points: Points, resolution: int | Int3, up: UpAxis = "y", scale: float = FIT_SCALE) -> Frame:
        """The smallest cube (times 1 / scale) around all points, with their bounding box in its middle.

        A single point, or none, gets a cube of side 1. `resolution` counts the cells along each side of the cube.
        """
        if len(points) == 0:
            return Frame.unit(resolution, up)
        low, high = points.amin(0).double(), points.amax(0).double()
        side = float((high - low).max()) / scale or 1.0
        middle = ((low + high) / 2).tolist()
        a = cast(Float3, tuple(m - side / 2 for m in middle))
        b = cast(Float3, tuple(m + side / 2 for m in middle))
        return Frame.box(a, b, resolution, up)

    def to_world(self, index_points: Tensor) -> Tensor:
        """Index frame → world: (..., 3) positions measured in cells from the lowest corner. Differentiable."""
        origin, size = self._tensors(index_points)
        return origin + index_points * size

    def to_index(self, world_points: Tensor) -> Tensor:
        """World → index frame: (..., 3) positions measured in cells. Differentiable."""
        origin, size = self._tensors(world_points)
        return (world_points - origin) / size

    def to_cell(self, world_points: Tensor) -> Cells:
        """The cell that each world point lies in, int32; cells may be negative or beyond the grid."""
        return self.to_index(world_points).floor().int()

    def centers(self, cells: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """World centres of cells (..., 3)."""
        return self.to_world(cells.to(dtype) + 0.5)

    def coarsen(self, factor: int | Int3) -> Frame:
        """The frame whose cells are `factor` times as large; cell i becomes i // factor."""
        f = require_int3("Frame.coarsen", "factor", factor, 1)
        return Frame(self.origin, cast(Float3, tuple(v * k for v, k in zip(self.voxel_size, f, strict=True))), self.up)

    def refine(self, factor: int | Int3) -> Frame:
        """The frame whose cells are `factor` times as small."""
        f = require_int3("Frame.refine", "factor", factor, 1)
        return Frame(self.origin, cast(Float3, tuple(v / k for v, k in zip(self.voxel_size, f, strict=True))), self.up)

    def shifted(self, cells: Int3) -> Frame:
        """The frame whose cell (0, 0, 0) is this frame's cell `cells`."""
        origin = tuple(o + c * v for o, c, v in zip(self.origin, cells, self.voxel_size, strict=True))
        return Frame(cast(Float3, origin), self.voxel_size, self.up)

    def bounds(self, resolution: Int3) -> tuple[Float3, Float3]:
        """World corners (low, high) of a grid of this many cells."""
        high = tuple(o + n * v for o, n, v in zip(self.origin, resolution, self.voxel_size, strict=True))
        return self.origin, cast(Float3, high)

    def isclose(self, other: Frame, tolerance: float = 1e-6) -> bool:
        """True if both frames agree to `tolerance` cells at the origin and relatively in size, and in the up axis."""
        shift = max(abs(a - b) / v for a, b, v in zip(self.origin, other.origin, self.voxel_size, strict=True))
        grow = max(abs(a / b - 1) for a, b in zip(self.voxel_size, other.voxel_size, strict=True))
        return shift <= tolerance and grow <= tolerance and self.up == other.up

    def require_close(self, where: str, other: Frame) -> None:
        """Raise FrameError unless `isclose`."""
        if not self.isclose(other):
            raise FrameError(f"{where}: both sides must live in one frame; got {self} and {other}.")

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return (
            torch.tensor(self.origin, dtype=dtype, device=like.device),
            torch.tensor(self.voxel_size, dtype=dtype, device=like.device),
        )
