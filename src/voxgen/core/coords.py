"""Packed int64 keys of cells, and the order and membership tests built on them.

A key holds [batch, x, y, z] in 15 + 16 + 16 + 16 bits, so that keys sort like rows and 65,536 cells an axis fit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .aliases import Coords, Keys
from .checks import require_tensor
from .errors import RangeError

AXIS_BITS = 16
MAX_RESOLUTION = 1 << AXIS_BITS
"""Largest number of cells along one axis."""
MAX_BATCH = 1 << (63 - 3 * AXIS_BITS)
"""Largest number of samples in a batch."""


def pack_keys(coords: Coords) -> Keys:
    """Pack rows [batch, x, y, z] to int64 keys that sort like the rows.

    Args:
        coords: (n, 4) int32 or int64, 0 <= batch < 32768, 0 <= x, y, z < 65536. The range is the caller's promise:
            it is not read here (`check_coords` reads it).
    """
    b, x, y, z = coords.long().unbind(-1)
    return (((b << AXIS_BITS | x) << AXIS_BITS | y) << AXIS_BITS) | z


def unpack_keys(keys: Keys) -> Coords:
    """Inverse of `pack_keys`: (n, 4) int32."""
    mask = MAX_RESOLUTION - 1
    z = keys & mask
    y = (keys >> AXIS_BITS) & mask
    x = (keys >> 2 * AXIS_BITS) & mask
    b = keys >> 3 * AXIS_BITS
    return torch.stack((b, x, y, z), -1).int()


def check_coords(where: str, coords: Tensor, resolution: tuple[int, int, int], batch_size: int | None = None) -> None:
    """Raise unless coords is (n, 4) int32 inside the grid. Reads values (one reduction)."""
    require_tensor(where, "coords", coords, ("n", 4), (torch.int32,), hint="Rows are [batch, x, y, z]. World points? Use Frame.to_cell().")
    if len(coords) == 0:
        return
    low, high = coords.amin(0).tolist(), coords.amax(0).tolist()
    limits = [MAX_BATCH if batch_size is None else batch_size, *resolution]
    for axis, name in enumerate(("batch", "x", "y", "z")):
        if low[axis] < 0 or high[axis] >= limits[axis]:
            raise RangeError(
                f"{where}: coords[:, {axis}] ({name}) must lie in [0, {limits[axis]}); got values from {low[axis]} to {high[axis]}."
            )


def is_sorted(keys: Keys) -> bool:
    """True if keys ascend strictly, which also means that they are unique. Reads values."""
    return len(keys) < 2 or bool((keys[1:] > keys[:-1]).all())
