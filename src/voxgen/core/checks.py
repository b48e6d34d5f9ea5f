"""Argument checks with one way of saying what is wrong.

Checks of shape, dtype and device are always on. Checks that read values make the CPU wait for the GPU, so callers use
them where geometry comes in from outside, and not inside layers.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import DeviceError, DtypeError, RangeError, ShapeError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64, torch.int16, torch.uint8, torch.int8)


def describe(value: Any) -> str:
    """Short text for an error message: shape and dtype of a tensor or array, else the type's name and the value."""
    if isinstance(value, Tensor) or (hasattr(value, "dtype") and hasattr(value, "shape")):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def require_tensor(
    where: str,
    name: str,
    value: Any,
    shape: Sequence[int | str] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    *,
    hint: str = "",
) -> Tensor:
    """Return `value` if it is a tensor of this shape and one of these dtypes, else raise.

    Args:
        where: name of the public function, first word of the message.
        name: name of the argument.
        shape: one entry an axis: an int must match, a string names a free length.
        dtypes: allowed dtypes; None allows all.
        hint: what to do about it, appended to the message.
    Raises:
        DtypeError: not a tensor, or another dtype.   ShapeError: another shape.
    """
    tail = f" {hint}" if hint else ""
    if not isinstance(value, Tensor):
        raise DtypeError(f"{where}: {name} must be a tensor{_wanted(shape, dtypes)}; got {describe(value)}.{tail}")
    if shape is not None:
        fits = value.ndim == len(shape) and all(isinstance(s, str) or s == n for s, n in zip(shape, value.shape, strict=False))
        if not fits:
            raise ShapeError(f"{where}: {name} must be{_wanted(shape, dtypes)}; got {describe(value)}.{tail}")
    if dtypes is not None and value.dtype not in dtypes:
        raise DtypeError(f"{where}: {name} must be{_wanted(shape, dtypes)}; got {describe(value)}.{tail}")
    return value


def _wanted(shape: Sequence[int | str] | None, dtypes: Sequence[torch.dtype] | None) -> str:
    words = ""
    if shape is not None:
        words += " (" + ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"
    if dtypes is not None:
        words += " " + " or ".join(str(d).removeprefix("torch.") for d in dtypes)
    return words


def require_same_device(where: str, **tensors: Tensor | None) -> torch.device:
    """Raise DeviceError unless all given tensors lie on one device; return it."""
    present = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(present.values())) > 1:
        listing = ", ".join(f"{name} on {device}" for name, device in present.items())
        raise DeviceError(f"{where}: all tensors must lie on one device; got {listing}. Move them with .to(device).")
    return next(iter(present.values()))


def require_finite(where: str, name: str, value: Tensor) -> None:
    """Raise RangeError that names the first row with NaN or infinity. Reads values."""
    finite = torch.isfinite(value)
    if not bool(finite.all()):
        bad = (~finite).reshape(len(value), -1).any(1)
        row = int(bad.nonzero()[0])
        raise RangeError(
            f"{where}: {name} must be finite; {int(bad.sum())} of {len(value)} rows are not, the first is row {row} = "
            f"{value[row].tolist()}. Remove or repair them before the call."
        )


def require_int(where: str, name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as int if it is a whole number (bool excluded) in range, else raise DtypeError or RangeError."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise DtypeError(f"{where}: {name} must be a whole number; got {describe(value)}.") from None
    if number < minimum or (maximum is not None and number > maximum):
        bound = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise RangeError(f"{where}: {name} must be {bound}; got {number}.")
    return number


def require_int3(where: str, name: str, value: Any, minimum: int, maximum: int | None = None) -> tuple[int, int, int]:
    """One whole number for all axes, or three: return three."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        if len(value) != 3:
            raise ShapeError(f"{where}: {name} must be one whole number or three; got {len(value)}.")
        x, y, z = (require_int(where, f"{name}[{i}]", v, minimum, maximum) for i, v in enumerate(value))
        return x, y, z
    n = require_int(where, name, value, minimum, maximum)
    return n, n, n


def require_choice(where: str, name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the words, else raise RangeError that lists them."""
    if value not in choices:
        raise RangeError(f"{where}: {name} must be one of {', '.join(map(repr, choices))}; got {describe(value)}.")
    return str(value)
