"""Checks that every layer makes of what comes in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import FLOATS, describe, require_same_device
from voxgen.core.errors import DtypeError, RangeError, ShapeError


def require_input(where: str, x: Any, channels: int, weight: Tensor) -> SparseTensor:
    """Return x if it is a SparseTensor of this width on the weights' device and of their dtype (under autocast: any float).

    Raises:
        ShapeError: another number of channels.   DeviceError: another device.   DtypeError: not a SparseTensor, or of
        another dtype.
    """
    require_width(where, x, channels)
    require_same_device(where, x=x.feats, weights=weight)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise DtypeError(
            f"{where}: x must have the dtype of the weights, {weight.dtype}; got {x.dtype}. "
            "Convert with x.to(dtype), or use torch.autocast."
        )
    return x


def require_width(where: str, x: Any, channels: int) -> SparseTensor:
    """Return x if it is a SparseTensor of floats of this width, on any device."""
    if not isinstance(x, SparseTensor):
        raise DtypeError(f"{where}: x must be a SparseTensor; got {describe(x)}. Wrap features with SparseTensor(grid, feats).")
    if x.channels != channels:
        raise ShapeError(f"{where}: x must have {channels} channels; got {x.channels}.")
    if x.dtype not in FLOATS:
        raise DtypeError(f"{where}: x must have float features; got {x.dtype}. Convert with x.to(torch.float32).")
    return x


def require_cells(where: str, name: str, grid: VoxelGrid, x: SparseTensor) -> None:
    """Raise RangeError unless `grid` (one side of a structure) has the cells of x. Reads values unless both are one object."""
    require_same_device(where, x=x.feats, structure=grid.coords)
    if not grid.same_cells(x.grid):
        raise RangeError(
            f"{where}: {name} must be the cells of x; got {grid!r} and {x.grid!r}, which differ. "
            "Give the structure that was made from or for this level."
        )
