"""The record of oriented points. How it is made, voxelised and stored lies in the files beside this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Frame
from voxgen.core.aliases import Offsets, Points
from voxgen.core.batching import counts_from_offsets, offsets_from_counts
from voxgen.core.checks import require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, ShapeError

from ._from_mesh import from_mesh as _from_mesh
from ._storage import load as _load
from ._storage import save as _save
from ._voxels import voxels as _voxels


@dataclass(frozen=True, eq=False)
class OrientedPoints:
    """Points on surfaces with the normals there: a ragged batch, in one box.

    Args:
        points: (p, 3) float32 or float64, world units, sample after sample.
        normals: (p, 3) of the same dtype, unit length.
        offsets: (b + 1,) int64, bounds of the samples; None is one sample.
        frame: the box that the points belong to, as the frame of a grid of one cell; `voxels` divides it. The unit cube by default.
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit each other; offsets that do not ascend to the number of points.
    `from_mesh`, `voxels`, `save` and `load` are each defined in the file of their concept.

    Source: TripoSF (arXiv 2503.21732), the input of its encoder. Differences: samples of a batch may differ in size.
    Example:
        >>> from voxgen.testing.shapes import torus
        >>> cloud = OrientedPoints.from_mesh(torus(), 10_000)
        >>> len(cloud), len(cloud.voxels(32, torus())) > 1000
        (10000, True)
    """

    points: Points
    normals: Float[Tensor, "p 3"]
    offsets: Offsets = None  # pyright: ignore[reportAssignmentType] (filled below)
    frame: Frame = dataclasses.field(default_factory=lambda: Frame.unit(1))

    def __post_init__(self) -> None:
        where = "OrientedPoints"
        require_tensor(where, "points", self.points, ("p", 3), (torch.float32, torch.float64))
        require_tensor(where, "normals", self.normals, (len(self.points), 3), (self.points.dtype,))
        if self.offsets is None:
            object.__setattr__(self, "offsets", torch.tensor([0, len(self.points)], device=self.points.device))
        require_tensor(where, "offsets", self.offsets, ("b + 1",), (torch.int64,))
        require_same_device(where, points=self.points, normals=self.normals, offsets=self.offsets)
        bounds = self.offsets.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != len(self.points) or bounds != sorted(bounds):
            raise ShapeError(f"{where}: offsets must ascend from 0 to the number of points, {len(self.points)}; got {bounds}.")
        if not isinstance(self.frame, Frame):
            raise DtypeError(f"{where}: frame must be a Frame; got {type(self.frame).__name__}.")

    @property
    def batch_size(self) -> int:
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        return self.points.device

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"OrientedPoints({len(self)} points, batch_size={self.batch_size}, device={self.device})"

    def replace(self, **fields: object) -> OrientedPoints:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def to(self, target: torch.device | str | torch.dtype) -> OrientedPoints:
        """Move to a device, or convert points and normals to another dtype."""
        offsets = self.offsets if isinstance(target, torch.dtype) else self.offsets.to(target)
        return self.replace(points=self.points.to(target), normals=self.normals.to(target), offsets=offsets)

    def sample(self, index: int) -> OrientedPoints:
        """Sample `index` of a batch, as a batch of one."""
        i = require_int("OrientedPoints.sample", "index", index, 0, self.batch_size - 1)
        start, end = self.offsets[i : i + 2].tolist()
        return OrientedPoints(self.points[start:end], self.normals[start:end], frame=self.frame)

    @staticmethod
    def batched(items: Sequence[OrientedPoints]) -> OrientedPoints:
        """Put point sets of one box in one batch.

        Raises:
            ShapeError: nothing to batch.   FrameError: boxes differ.
        """
        if not items:
            raise ShapeError("OrientedPoints.batched: at least one item is needed; got none.")
        for item in items[1:]:
            item.frame.require_close("OrientedPoints.batched", items[0].frame)
        counts = torch.cat([counts_from_offsets(item.offsets) for item in items])
        points, normals = (torch.cat([getattr(item, name) for item in items]) for name in ("points", "normals"))
        return OrientedPoints(points, normals, offsets_from_counts(counts), items[0].frame)

    from_mesh = staticmethod(_from_mesh)
    voxels = _voxels
    save = _save
    load = staticmethod(_load)
