"""Checks that every layer makes of what comes in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import FLOATS, describe, require_int, require_same_device
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.resample import Structure


def require_input(where: str, x: Any, channels: int, weight: Tensor) -> SparseTensor:
    """Return x if it is a SparseTensor of this width, on the weights' device and of their dtype (under autocast: of any float dtype).

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
    """Return x if it is a SparseTensor of floats of this width, on any device; errors as `require_input`."""
    if not isinstance(x, SparseTensor):
        raise DtypeError(f"{where}: x must be a SparseTensor; got {describe(x)}. Wrap features with SparseTensor(grid, feats).")
    if x.channels != channels:
        raise ShapeError(f"{where}: x must have {channels} channels; got {x.channels}.")
    if x.dtype not in FLOATS:
        raise DtypeError(f"{where}: x must have float features; got {x.dtype}. Convert with x.to(torch.float32).")
    return x


def require_channels(where: str, **channels: Any) -> None:
    """Raise unless all are whole numbers of at least 1."""
    for name, value in channels.items():
        require_int(where, name, value, 1)


def structure_below(where: str, x: SparseTensor, structure: Structure | None) -> Structure:
    """The structure whose children are the cells of x: the one given, checked, or else `Structure.of_children`."""
    if structure is None:
        return Structure.of_children(x.grid)
    return _require_structure(where, "children", structure, structure.children, x)


def require_parents(where: str, x: SparseTensor, structure: Structure) -> Structure:
    """The structure, if its parents are the cells of x."""
    return _require_structure(where, "parents", structure, structure.parents, x)


def _require_structure(where: str, side: str, structure: Structure, grid: VoxelGrid, x: SparseTensor) -> Structure:
    """Reads values of cells only where the grids are two objects."""
    if structure.factor != (2, 2, 2):
        raise RangeError(f"{where}: structure must be of factor 2 along each axis; got factor {structure.factor}.")
    require_same_device(where, x=x.feats, structure=grid.coords)
    if not grid.same_cells(x.grid):
        raise RangeError(
            f"{where}: structure.{side} must be the cells of x; got {grid!r} and {x.grid!r}, which differ. "
            "Give the structure that was made from or for this level."
        )
    return structure
