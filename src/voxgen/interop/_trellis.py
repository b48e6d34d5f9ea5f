"""Sparse tensors as the TRELLIS family passes them: objects with `coords`, `feats` and `replace`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor

from voxgen.core import Frame, SparseTensor
from voxgen.core.aliases import Int3
from voxgen.core.errors import DtypeError

from ._imported import Imported, Rows, attribute, export_rows, import_rows, require_same_rows


class TrellisTensor(Protocol):
    """What must be there: (n, 4) int32 [batch, x, y, z] and (n, c). `layout` or `shape` tell the batch size."""

    @property
    def coords(self) -> Tensor: ...
    @property
    def feats(self) -> Tensor: ...
    def replace(self, feats: Tensor, /) -> Any: ...


T = TypeVar("T", bound=TrellisTensor)


def from_trellis(
    x: TrellisTensor, *, resolution: int | Int3 | None = None, batch_size: int | None = None, frame: Frame | None = None
) -> Imported:
    """A TRELLIS-style tensor as a SparseTensor.

    Args:
        x: any object with `coords` (n, 4) int32 [batch, x, y, z], unique, in any order, and `feats` (n, c).
        resolution: cells an axis. Such tensors do not state it; None takes the smallest box from 0 that holds all cells,
            which is enough for submanifold layers. Give it where world positions, or layers between levels, matter.
        batch_size: None takes the number of slices in `x.layout`, else `x.shape[0]`, else the largest batch index + 1. The
            family derives it from the largest index, so samples that are empty at the end exist only if it is given here.
        frame: index ↔ world; None is the unit cube.
    Returns:
        The tensor, and the order of its rows, see `Imported`. Gradients flow to `x.feats`. Scale and spatial cache are not
        read: what a layer here needs of another level is an explicit argument of it.
    Raises:
        DtypeError: no such object, or coords are not int32.   ShapeError: other shapes, more than one axis of features.
        RangeError: a cell outside resolution or batch.   DuplicateError: a cell comes twice.   DeviceError: two devices.
    Example:
        >>> tensor, order = from_trellis(x)                               # x: any object with coords, feats and replace(feats)
        >>> y = to_trellis(tensor.with_feats(2 * tensor.feats), like=x, order=order)
        >>> torch.equal(y.feats, 2 * x.feats)
        True
    """
    return import_rows("from_trellis", read(x), resolution, batch_size, frame)


def to_trellis(x: SparseTensor, *, like: T | None = None, make: Callable[..., T] | None = None, order: Tensor | None = None) -> T:
    """A SparseTensor as a TRELLIS-style tensor: with the cells of a tensor that exists, or a new one.

    Args:
        x: (n, c).
        like: the tensor whose cells x has; the result is `like.replace(feats)`, which keeps its class, layout, scale and
            cache.
        make: the class, or any function, that makes a new tensor: called as make(feats=…, coords=…).
        order: (n,) from the import of `like`; None leaves rows in the order of the grid.
    Returns:
        What `replace` or `make` returns. Gradients flow to `x.feats`. A class that derives the batch size from the largest
        index loses samples that are empty at the end.
    Raises:
        RangeError: x does not have the cells of `like`.   DtypeError: not exactly one of `like` and `make`.
    """
    where = "to_trellis"
    if (like is None) == (make is None):
        raise DtypeError(f"{where}: give either `like` (cells stay) or `make` (a new tensor); got {'none' if like is None else 'both'}.")
    coords, feats = export_rows(where, x, order)
    if make is not None:
        return make(feats=feats, coords=coords)
    require_same_rows(where, coords, attribute(where, like, "coords", "TRELLIS-style tensor"))
    return replace(like, feats)


def read(x: Any) -> Rows:
    where, kind = "from_trellis", "TRELLIS-style tensor"
    coords, feats = attribute(where, x, "coords", kind), attribute(where, x, "feats", kind)
    batch_size: int | None = None
    if getattr(x, "layout", None) is not None:
        batch_size = len(x.layout)
    elif getattr(x, "shape", None) is not None:
        batch_size = int(x.shape[0])
    return Rows(coords, feats, None, batch_size)


def replace(like: Any, feats: Tensor) -> Any:
    return attribute("to_trellis", like, "replace", "TRELLIS-style tensor")(feats)
