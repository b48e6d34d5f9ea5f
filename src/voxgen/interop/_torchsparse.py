"""Tensors of torchsparse, whose conventions changed with version 2.1."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from voxgen.core import Frame, SparseTensor
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_choice, require_int3, require_tensor
from voxgen.core.errors import MissingDependency, RangeError

from ._imported import Imported, Rows, attribute, export_rows, import_rows, require_same_rows

Version = Literal["2.1", "2.0"]
"""How coordinates are written.

"2.1" (and later): [batch, x, y, z], in cells of the tensor's own level.   "2.0" (and earlier): [x, y, z, batch], in cells of
the finest level, so that those of a tensor of stride s are multiples of s.
"""


def from_torchsparse(
    x: Any,
    *,
    version: Version = "2.1",
    resolution: int | Int3 | None = None,
    batch_size: int | None = None,
    frame: Frame | None = None,
) -> Imported:
    """A `torchsparse.SparseTensor` as a SparseTensor.

    Args:
        x: with `feats` (n, c), `coords` (n, 4) int32, unique, in any order, and `stride`. torchsparse also takes negative
            coordinates; here cells begin at 0.
        version: see `Version`.
        resolution: cells an axis, of the tensor's own level. None takes `x.spatial_range`, else the smallest box from 0 that
            holds all cells.
        batch_size: None takes `x.spatial_range[0]`, else the largest batch index + 1: without one, samples that are empty at
            the end exist only if it is given here.
        frame: index ↔ world; None is the unit cube.
    Returns:
        The tensor, and the order of its rows, see `Imported`. Gradients flow to `x.feats`.
    Raises:
        As `from_trellis`; RangeError for coordinates of version "2.0" that are no multiples of the stride.
    """
    return import_rows("from_torchsparse", read(x, version), resolution, batch_size, frame)


def to_torchsparse(
    x: SparseTensor, *, version: Version = "2.1", like: Any | None = None, stride: int | Int3 = 1, order: Tensor | None = None
) -> Any:
    """A SparseTensor as a `torchsparse.SparseTensor`.

    Args:
        x: (n, c).
        version: see `Version`.
        like: the tensor whose cells x has; the result is of its class and shares its stride and its maps. None makes a new
            tensor, which states the resolution and the batch size of x where the version can ("2.1").
        stride: of a new tensor.
        order: (n,) from the import of `like`; None leaves rows in the order of the grid.
    Returns:
        The tensor; gradients flow to `x.feats`. Version "2.0" loses samples that are empty at the end.
    Raises:
        RangeError: x does not have the cells of `like`, or an unknown version.   MissingDependency: a new tensor without
        torchsparse.
    """
    where = "to_torchsparse"
    require_choice(where, "version", version, ("2.1", "2.0"))
    cells, feats = export_rows(where, x, order)
    steps = require_int3(where, "stride", stride if like is None else attribute(where, like, "stride", "SparseTensor"), 1)
    coords = cells
    if version == "2.0":
        coords = torch.cat((cells[:, 1:] * cells.new_tensor(steps), cells[:, :1]), 1)
    if like is not None:
        require_same_rows(where, coords, attribute(where, like, "coords", "SparseTensor"))
        return replace(like, feats)
    try:
        import torchsparse  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependency(f"{where}: a new tensor needs torchsparse (https://github.com/mit-han-lab/torchsparse).") from error
    if version == "2.0":
        return torchsparse.SparseTensor(feats=feats, coords=coords, stride=steps)
    return torchsparse.SparseTensor(feats=feats, coords=coords, stride=steps, spatial_range=(x.grid.batch_size, *x.grid.resolution))


def read(x: Any, version: Version) -> Rows:
    where, kind = "from_torchsparse", "SparseTensor"
    require_choice(where, "version", version, ("2.1", "2.0"))
    feats, found = attribute(where, x, "feats", kind), attribute(where, x, "coords", kind)
    coords = require_tensor(where, "coords", found, ("n", 4), (torch.int32,))
    if version == "2.0":
        steps = coords.new_tensor(require_int3(where, "stride", attribute(where, x, "stride", kind), 1))
        cells = coords[:, :3].div(steps, rounding_mode="floor")
        if not torch.equal(cells * steps, coords[:, :3]):
            raise RangeError(
                f"{where}: coords of version '2.0' must be multiples of the stride, {steps.tolist()}; some are not. Is the tensor of 2.1?"
            )
        coords = torch.cat((coords[:, 3:], cells), 1)
    extent = getattr(x, "spatial_range", None)
    if extent is None:
        return Rows(coords, feats, None, None)
    b, nx, ny, nz = (int(n) for n in extent)
    return Rows(coords, feats, (nx, ny, nz), b)


def replace(like: Any, feats: Tensor) -> Any:
    """As torchsparse's own layers do: a new tensor that shares the maps."""
    extent = {"spatial_range": like.spatial_range} if hasattr(like, "spatial_range") else {}
    result = type(like)(feats=feats, coords=like.coords, stride=like.stride, **extent)
    for name in ("_caches", "cmaps", "kmaps"):
        if hasattr(like, name):
            setattr(result, name, getattr(like, name))
    return result
