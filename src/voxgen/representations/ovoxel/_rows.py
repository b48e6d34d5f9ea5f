"""Voxels as plain rows: what every file format checks before it writes, and the order in which every reader returns them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from voxgen.core.checks import describe, require_tensor
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import DtypeError, DuplicateError, RangeError, ShapeError

_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")


class Rows(NamedTuple):
    """coords: (n, 3) int32.   attributes: (n, c) arrays by name."""

    coords: np.ndarray
    attributes: dict[str, np.ndarray]


class Order(NamedTuple):
    """keys: (n,) int64 voxels as x << 32 | y << 16 | z, ascending.   rows: (n,) int64, the row that each key comes from."""

    keys: np.ndarray
    rows: np.ndarray


def lexicographic(coords: np.ndarray) -> Order:
    """Order of (n, 3) coordinates by x, then y, then z."""
    x, y, z = coords.astype(np.int64).T
    keys = x << 32 | y << 16 | z
    if bool((keys[1:] > keys[:-1]).all()):
        return Order(keys, np.arange(len(keys), dtype=np.int64))
    rows = np.argsort(keys)
    return Order(keys[rows], rows)


def require_unique(where: str, order: Order) -> None:
    """Raise DuplicateError that names the first coordinate which stands in two rows."""
    repeated = np.flatnonzero(order.keys[1:] == order.keys[:-1])
    if len(repeated):
        key, first, second = int(order.keys[repeated[0]]), *sorted(order.rows[repeated[0] : repeated[0] + 2].tolist())
        raise DuplicateError(
            f"{where}: coords must be unique; {len(repeated)} rows repeat a voxel, e.g. rows {first} and {second} = "
            f"{[key >> 32, key >> 16 & 0xFFFF, key & 0xFFFF]}. Keep one row a voxel."
        )


def require_rows(
    where: str,
    coords: Tensor,
    attributes: Mapping[str, Tensor],
    dtypes: Sequence[torch.dtype],
    *,
    reserved: Sequence[str] = (),
    plain_names: bool = False,
) -> Rows:
    """Check coordinates and attributes before they are written, and bring them to the CPU.

    Args:
        reserved: names that no attribute may have.
        plain_names: allow letters, digits, "_", "." and "-" only, for formats that a space or a line end would break.
    Raises:
        ShapeError: coords not (n, 3), an attribute not (n, c >= 1), no attribute.   DtypeError: another dtype.
        RangeError: a coordinate outside [0, 65536), a name that is not allowed.
    """
    require_tensor(where, "coords", coords, ("n", 3), (torch.int32, torch.int64), hint="Rows are [x, y, z] of one object.")
    n = len(coords)
    if n:
        low, high = (int(v) for v in coords.aminmax())
        if low < 0 or high >= MAX_RESOLUTION:
            raise RangeError(f"{where}: coords must lie in [0, {MAX_RESOLUTION}); got values from {low} to {high}.")
    if not isinstance(attributes, Mapping):
        raise DtypeError(f"{where}: attributes must be a dict of tensors by name; got {describe(attributes)}.")
    if not attributes:
        raise ShapeError(f"{where}: attributes must hold at least one tensor; got none. The format cannot store bare coordinates.")
    found: dict[str, np.ndarray] = {}
    for name, value in attributes.items():
        if not isinstance(name, str) or not name or name in reserved:
            taken = f" and none of {', '.join(map(repr, reserved))}" if reserved else ""
            raise RangeError(f"{where}: names of attributes must be non-empty strings{taken}; got {describe(name)}.")
        if plain_names and not _PLAIN.fullmatch(name):
            raise RangeError(f"{where}: names of attributes must consist of letters, digits, '_', '.' and '-'; got {name!r}.")
        hint = "" if torch.float32 in dtypes else "Quantise floats first (quantize_dual, quantize_attribute)."
        require_tensor(where, f"attributes[{name!r}]", value, (n, "c"), dtypes, hint=hint)
        if value.shape[1] == 0:
            raise ShapeError(f"{where}: attributes[{name!r}] must have at least one channel; got {describe(value)}.")
        found[name] = value.detach().cpu().contiguous().numpy()
    return Rows(coords.cpu().int().contiguous().numpy(), found)
