"""The check of offsets by value. It is here and not beside the other checks, so that tracing, which has no values, does not meet it."""

from __future__ import annotations

from torch import Tensor

from voxgen.core.errors import RangeError, ShapeError


def check_bounds(offsets: Tensor, rows: int) -> None:
    """Raise unless offsets lead from 0 to the number of rows without falling. Reads CPU tensors only."""
    if offsets.device.type != "cpu":
        return
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0 or last != rows:
        raise ShapeError(f"segment: offsets must lead from 0 to the number of rows, {rows}; got {first} and {last} at their ends.")
    falls = offsets.diff() < 0
    if bool(falls.any()):
        i = int(falls.nonzero()[0])
        raise RangeError(
            f"segment: offsets must not fall; got {int(offsets[i])} at {i} and {int(offsets[i + 1])} after it. "
            "Are they lengths? Use offsets_from_counts()."
        )
