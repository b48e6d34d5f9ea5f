"""Tensors of spconv."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from voxgen.core import Frame, SparseTensor
from voxgen.core.checks import require_choice
from voxgen.core.errors import MissingDependency, ShapeError

from ._imported import Imported, Rows, attribute, export_rows, import_rows, require_same_rows

Axes = Literal["xyz", "zyx"]
"""What the three columns of spconv's indices after the batch mean, and with them `spatial_shape` and kernels.

spconv itself does not say. "xyz": generative code (the TRELLIS family). "zyx": most detection code.
"""


def from_spconv(x: Any, *, axes: Axes = "xyz", batch_size: int | None = None, frame: Frame | None = None) -> Imported:
    """A `spconv.pytorch.SparseConvTensor` as a SparseTensor.

    Args:
        x: with `features` (n, c), `indices` (n, 4) int32 [batch, three axes], unique, in any order, `spatial_shape` and
            `batch_size`.
        axes: see `Axes`. With "zyx" a kernel (…, k0, k1, k2, …) must have its three axes reversed too before
            `voxgen.ops.conv.layouts.from_layout`.
        batch_size: None takes the tensor's, which counts samples that are empty at the end.
        frame: index ↔ world; None is the unit cube.
    Returns:
        The tensor, of the resolution that `spatial_shape` states, and the order of its rows, see `Imported`. Gradients flow to
        `x.features`. Index pairs (`indice_dict`) are not read.
    Raises:
        As `from_trellis`; ShapeError for tensors of another number of dimensions.
    """
    return import_rows("from_spconv", read(x, axes), None, batch_size, frame)


def to_spconv(x: SparseTensor, *, axes: Axes = "xyz", like: Any | None = None, order: Tensor | None = None) -> Any:
    """A SparseTensor as a `spconv.pytorch.SparseConvTensor`.

    Args:
        x: (n, c).
        axes: see `Axes`.
        like: the tensor whose cells x has; the result is `like.replace_feature(features)`, which keeps its index pairs. None
            makes a new tensor, with the resolution and the batch size of x.
        order: (n,) from the import of `like`; None leaves rows in the order of the grid.
    Returns:
        The tensor; gradients flow to `x.feats`.
    Raises:
        RangeError: x does not have the cells of `like`, or unknown axes.   MissingDependency: a new tensor without spconv.
    """
    where = "to_spconv"
    columns = _columns(where, axes)
    coords, feats = export_rows(where, x, order)
    indices = coords[:, columns].contiguous()
    if like is not None:
        require_same_rows(where, indices, attribute(where, like, "indices", "SparseConvTensor"))
        return replace(like, feats)
    try:
        from spconv.pytorch import SparseConvTensor  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependency(
            f"{where}: a new tensor needs spconv (pip install spconv-cu126, or the name of your CUDA version)."
        ) from error
    shape = [x.grid.resolution[c - 1] for c in columns[1:]]
    return SparseConvTensor(feats, indices, shape, x.grid.batch_size)


def read(x: Any, axes: Axes) -> Rows:
    where, kind = "from_spconv", "SparseConvTensor"
    columns = _columns(where, axes)
    indices = attribute(where, x, "indices", kind)
    shape = [int(n) for n in attribute(where, x, "spatial_shape", kind)]
    if len(shape) != 3:
        raise ShapeError(f"{where}: needs a tensor of three dimensions; its spatial_shape is {shape}.")
    size = tuple(shape[c - 1] for c in columns[1:])
    coords = indices[:, columns] if axes == "zyx" else indices
    return Rows(coords, attribute(where, x, "features", kind), (size[0], size[1], size[2]), int(attribute(where, x, "batch_size", kind)))


def replace(like: Any, feats: Tensor) -> Any:
    return attribute("to_spconv", like, "replace_feature", "SparseConvTensor")(feats)


def _columns(where: str, axes: str) -> list[int]:
    return [0, 1, 2, 3] if require_choice(where, "axes", axes, ("xyz", "zyx")) == "xyz" else [0, 3, 2, 1]
