"""Means over packed batches, and what all terms do with their inputs before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.batching import counts_from_offsets
from voxgen.core.checks import FLOATS, describe, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.segment import segment_reduce


def single(values: Tensor) -> Tensor:
    """Half-precision numbers in float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def require_pair(where: str, names: tuple[str, str], one: Any, other: Any, shape: tuple[int | str, ...]) -> tuple[Tensor, Tensor]:
    """Two float tensors of one shape on one device, half types raised to float32, or raise."""
    require_tensor(where, names[0], one, shape, FLOATS)
    require_tensor(where, names[1], other, shape, FLOATS)
    if one.shape != other.shape:
        raise ShapeError(f"{where}: {names[0]} and {names[1]} must have one shape; got {describe(one)} and {describe(other)}.")
    require_same_device(where, **dict(zip(names, (one, other), strict=True)))
    return single(one), single(other)


def require_flags(where: str, name: str, flags: Any, logits: Tensor) -> None:
    """Bool targets of the shape of their logits, or raise."""
    require_tensor(where, name, flags, tuple(logits.shape), (torch.bool,), hint="Logits as targets? Use logits > 0.")
    require_same_device(where, logits=logits, **{name: flags})


def mean(where: str, values: Tensor, offsets: Offsets | None) -> Tensor:
    """Mean of (n, ...) errors over all elements; with offsets over each sample first, then over the samples that have rows.

    Zero, with a gradient of zero, where there is nothing to average.
    """
    if offsets is None:
        return values.mean() if values.numel() else values.sum()
    require_tensor(where, "offsets", offsets, ("b + 1",), (torch.int64,), hint="VoxelGrid.offsets are such bounds.")
    require_same_device(where, values=values, offsets=offsets)
    if len(offsets) == 0 or int(offsets[-1]) != len(values):
        ends = int(offsets[-1]) if len(offsets) else "nothing"
        raise RangeError(f"{where}: offsets must end at the number of rows, {len(values)}; got {ends}. Are they of another level?")
    if values.numel() == 0:
        return values.sum()
    each = segment_reduce(values.flatten(1).mean(1, keepdim=True), offsets, "mean")
    return each.sum() / (counts_from_offsets(offsets) > 0).sum()
