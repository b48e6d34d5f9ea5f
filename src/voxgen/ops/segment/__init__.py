"""Over the rows of each sample, or of any other consecutive runs of rows: reduce, repeat, softmax."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Feats, Offsets
from voxgen.core.checks import FLOATS, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops._registry import Backend, Op, cpu_only

__all__ = ["Reduction", "segment_broadcast", "segment_reduce", "segment_softmax"]

SEGMENT = Op(
    "segment",
    [
        Backend("numba", "voxgen.ops.segment._op:segment_numba", (cpu_only,)),
        Backend("torch", "voxgen.ops.segment._op:segment_torch"),
        Backend("reference", "voxgen.ops.segment._reference:segment"),
    ],
)

Reduction = Literal["sum", "mean", "max", "min"]
"""What `segment_reduce` takes of the rows of a segment."""


def segment_reduce(values: Feats, offsets: Offsets, how: Reduction = "sum", *, backend: str = "auto") -> Float[Tensor, "b c"]:
    """One row a segment, from all of its rows.

    Args:
        values: (n, c) floats.
        offsets: (b + 1,) int64, from 0 to n, never falling: segment s is rows offsets[s]:offsets[s + 1]. `VoxelGrid.offsets`
            makes a segment of each sample.
        how: see `Reduction`.
        backend: see docs/backends.md.
    Returns:
        (b, c) of the dtype of values; 0 for an empty segment, for "max" and "min" too, as in `pool`: infinity is what
        mathematics has there, and would turn all that is computed from an empty sample into NaN.
        Differentiable as often as wanted; equal extremes share the gradient equally.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: an unknown `how`, or offsets
        that fall. Values of offsets are read on the CPU only; elsewhere that would stop the queue, and bounds that do not
        fit give a wrong result.
    No rows and no segments are legal.
    Source: none; torch's `segment_reduce` with a fixed order of sums on every device.
    Numerics: in float32, or float64 for float64, rounded once. Rows of a segment are added in a tree whose shape
        depends on their number alone: the same result in each run, and bit for bit the same in any batch. NaN stays in its segment
        and channel.
    Example:
        >>> segment_reduce(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0, 2, 2, 3]), "mean").tolist()
        [[1.5], [0.0], [5.0]]
    """
    where = "segment_reduce"
    _check(where, values, "n", offsets)
    require_choice(where, "how", how, ("sum", "mean", "max", "min"))
    result = SEGMENT.engine(backend, values)("sum" if how == "mean" else how, _wide(values), offsets, len(values))
    if how == "mean":
        result = result / offsets.diff().clamp_min(1)[:, None]
    return result.to(values.dtype)


def segment_broadcast(
    values: Float[Tensor, "b c"], offsets: Offsets, *, rows: int | None = None, backend: str = "auto"
) -> Float[Tensor, "n c"]:
    """The row of each segment to all of its rows; the gradient of a sum.

    Args:
        values: (b, c) floats.
        offsets, backend: as in `segment_reduce`.
        rows: n, where it is known. None reads it from offsets, for which the CPU waits for a GPU.
    Returns:
        (n, c) of the dtype of values. Differentiable as often as wanted.
    Raises: as `segment_reduce`; ShapeError if offsets do not end at `rows`.
    Example:
        >>> segment_broadcast(torch.tensor([[1.0], [7.0]]), torch.tensor([0, 2, 3])).tolist()
        [[1.0], [1.0], [7.0]]
    """
    where = "segment_broadcast"
    _check(where, values, "b", offsets)
    if len(offsets) != len(values) + 1:
        raise ShapeError(f"{where}: offsets must have one entry more than the {len(values)} rows of values; got {len(offsets)}.")
    n = int(offsets[-1]) if rows is None else require_int(where, "rows", rows, 0)
    return SEGMENT.engine(backend, values)("broadcast", values, offsets, n)


def segment_softmax(values: Feats, offsets: Offsets, *, backend: str = "auto") -> Feats:
    """Softmax of each channel over the rows of each segment.

    Args:
        values, offsets, backend: as in `segment_reduce`.
    Returns:
        (n, c) of the dtype of values; each channel sums to 1 in each segment that has rows. Differentiable as often as
        wanted. A segment and channel that holds only -inf, or +inf, or NaN, becomes NaN, as in torch.
    Raises: as `segment_reduce`.
    Numerics: as `segment_reduce`; the largest of each segment is subtracted first.
    Example:
        >>> segment_softmax(torch.zeros(3, 1), torch.tensor([0, 2, 3])).tolist()
        [[0.5], [0.5], [1.0]]
    """
    _check("segment_softmax", values, "n", offsets)
    return SEGMENT.engine(backend, values)("softmax", _wide(values), offsets, len(values)).to(values.dtype)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check(where: str, values: Tensor, rows: str, offsets: Tensor) -> None:
    require_tensor(where, "values", values, (rows, "c"), FLOATS)
    require_tensor(where, "offsets", offsets, ("b + 1",), (torch.int64,), hint="Lengths of segments? Use offsets_from_counts().")
    if len(offsets) == 0:
        raise ShapeError(f"{where}: offsets must have one entry more than there are segments, at least one; got none.")
    require_same_device(where, values=values, offsets=offsets)
