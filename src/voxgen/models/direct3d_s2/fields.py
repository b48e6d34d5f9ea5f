"""Decoded fields: what the refiners take, and dense volumes from a field and the sign of the rest."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, INTEGERS, describe, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError

__all__ = ["decoded_repeats", "require_field", "signed_volume"]

ROWS = 1 << 22
"""Cells written at once: torch indexes with int64, which for all cells would be more than the values."""


def require_field(where: str, field: SparseTensor, channels: int, patch_size: int, factor: int, weight: Tensor, pooled: int = 1) -> int:
    """Resolution of a field; raise unless it has this width on a cube that tiles can cover.

    Tiles have patch_size, or less where the cube, once pooled, is smaller; a tile's side is a multiple of factor.
    """
    if not isinstance(field, SparseTensor):
        raise DtypeError(f"{where}: field must be a SparseTensor; got {describe(field)}.")
    if field.channels != channels:
        raise ShapeError(f"{where}: field must have {channels} channels; got {field.channels}.")
    require_tensor(where, "field.feats", field.feats, ("n", channels), FLOATS)
    require_same_device(where, field=field.feats, weights=weight)
    side, *others = field.grid.resolution
    multiple = pooled * (factor if side < pooled * patch_size else 1)
    if any(other != side for other in others) or side % multiple:
        raise RangeError(f"{where}: the resolution must be a cube whose side is a multiple of {multiple}; got {field.grid.resolution}.")
    return side


def signed_volume(field: SparseTensor, outside: Bool[Tensor, "b x y z"]) -> Float[Tensor, "b 1 r r r"]:
    """A decoded field in its band, and 1 or −1 elsewhere.

    Args:
        field: (n, 1) floats.
        outside: (b, x, y, z) whether a cell lies outside; its sides divide the resolution of field, and each cell speaks for
            the cells that it covers.
    Returns:
        (b, 1, r, r, r) in the dtype of field. Differentiable in field.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
    Memory: the result, r³ values a sample: 2 GiB at 1024³ in half precision.
    Example:
        >>> signed_volume(field, torch.ones(1, 16, 16, 16, dtype=torch.bool)).shape          # field: (n, 1) on 32³ cells
        torch.Size([1, 1, 32, 32, 32])
    """
    where = "signed_volume"
    sides = field.grid.resolution
    require_tensor(where, "outside", outside, (field.grid.batch_size, "x", "y", "z"), (torch.bool,))
    require_same_device(where, field=field.feats, outside=outside)
    if field.channels != 1 or any(n % m for n, m in zip(sides, outside.shape[1:], strict=True)):
        raise ShapeError(
            f"{where}: field must have one channel, and the sides of outside must divide its resolution {sides}; "
            f"got {field.channels} channels and {tuple(outside.shape[1:])}."
        )
    fx, fy, fz = (n // m for n, m in zip(sides, outside.shape[1:], strict=True))
    b, x, y, z = outside.shape
    volume = torch.empty(b, x, fx, y, fy, z, fz, dtype=field.dtype, device=outside.device)
    for sample in range(b):  # a sample at a time: signs as floats are an eighth of its volume, at half the resolution
        volume[sample] = outside[sample].to(field.dtype).mul_(2).sub_(1)[:, None, :, None, :, None]
    volume = volume.view(b, *sides)
    for coords, values in zip(field.coords.split(ROWS), field.feats[:, 0].split(ROWS), strict=True):
        volume.index_put_(tuple(coords.long().unbind(1)), values)
    return volume[:, None]


def decoded_repeats(cells: Int[Tensor, "n 3"], *, chunk: int = 256, slab: int = 7) -> Int[Tensor, " n"]:
    """How often Direct3D-S2's chunked decoder emits each cell: neighbouring chunks both emit the slab where they meet.

    Its 1024 stage pools those rows with their repetitions, so the sign refiner's weights were trained with them.

    Args:
        cells: (n, 3) integers [x, y, z].
        chunk: side of a chunk in cells.
        slab: cells by which a chunk reaches into the next.
    Returns:
        (n,) int64: 1, 2, 4 or 8.
    Raises:
        ShapeError, DtypeError: not (n, 3) integers.   RangeError: a slab that is longer than a chunk.
    Example:
        >>> decoded_repeats(torch.tensor([[255, 0, 0], [256, 0, 300], [262, 256, 513]])).tolist()
        [1, 2, 8]
    """
    where = "decoded_repeats"
    require_tensor(where, "cells", cells, ("n", 3), INTEGERS)
    require_int(where, "slab", slab, 0, require_int(where, "chunk", chunk, 1))
    twice = (cells >= chunk) & (cells % chunk < slab)
    return 2 ** twice.sum(1)
