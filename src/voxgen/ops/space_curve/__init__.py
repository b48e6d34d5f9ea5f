"""Orders of cells in which neighbours stay close: Z-order (Morton) and Hilbert codes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from voxgen.core.aliases import Cells, Int3
from voxgen.core.checks import describe, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops._registry import Backend, Call, Op, cpu_only

Codes: TypeAlias = Int[Tensor, "n"]
"""Positions along a curve, int32 (10 bits an axis) or int64 (21)."""

SPACE_CURVE = Op(
    "space_curve",
    [
        Backend("numba", "voxgen.ops.space_curve._numba:space_curve", (cpu_only,)),
        Backend("torch", "voxgen.ops.space_curve._torch:space_curve"),
        Backend("reference", "voxgen.ops.space_curve._reference:space_curve"),
    ],
)

CODE_DTYPE = {10: torch.int32, 21: torch.int64}
"""Bits an axis → dtype of the codes."""


def encode_z_order(cells: Cells, *, bits: int = 10, permute: Int3 = (0, 1, 2), backend: str = "auto") -> Codes:
    """Number cells along the Z-order curve: the bits of x, y and z interleaved, x highest.

    Args:
        cells: (n, 3) int32 or int64 [x, y, z], 0 <= x, y, z < 2 ** bits, any device.
        bits: bits an axis: 10 gives 30-bit codes (int32, those of TRELLIS.2), 21 gives 63-bit codes (int64).
        permute: which axis comes first, second, third: (2, 0, 1) gives the code of (z, x, y).
        backend: see docs/backends.md.
    Returns:
        (n,) codes, int32 or int64. Codes of one `bits` and `permute` are unique a cell. No cells give no codes.
    Raises:
        RangeError: a coordinate out of range, another number of bits, `permute` that is no permutation.
        ShapeError, DtypeError: cells of another shape or dtype.
    Source: TRELLIS.2 code release. Differences: out-of-range cells raise (the original returns garbage); the 63-bit codes.
    Example:
        >>> encode_z_order(torch.tensor([[1, 2, 3], [100, 200, 300]], dtype=torch.int32)).tolist()
        [29, 22710080]
    """
    return _encode("encode_z_order", cells, bits, permute, backend)


def decode_z_order(codes: Codes, *, bits: int = 10, permute: Int3 = (0, 1, 2), backend: str = "auto") -> Cells:
    """Inverse of `encode_z_order` with the same `bits` and `permute`.

    Args:
        codes: (n,) int32 or int64, 0 <= code < 2 ** (3 * bits).
        bits, permute, backend: as in `encode_z_order`.
    Returns:
        (n, 3) int32 cells.
    Raises:
        RangeError: a code out of range.   ShapeError, DtypeError: codes of another shape or dtype.
    """
    return _decode("decode_z_order", codes, bits, permute, backend)


def encode_hilbert(cells: Cells, *, bits: int = 10, permute: Int3 = (0, 1, 2), backend: str = "auto") -> Codes:
    """Number cells along the Hilbert curve: cells with consecutive codes share a face.

    Args, Returns, Raises: as `encode_z_order`. The 10-bit and the 21-bit curve are different curves: each fills its own cube.

    Source: J. Skilling, "Programming the Hilbert curve" (2004), as used in the TRELLIS.2 code release.
    Example:
        >>> encode_hilbert(torch.tensor([[1, 2, 3], [100, 200, 300]], dtype=torch.int32)).tolist()
        [36, 124266514]
    """
    return _encode("encode_hilbert", cells, bits, permute, backend)


def decode_hilbert(codes: Codes, *, bits: int = 10, permute: Int3 = (0, 1, 2), backend: str = "auto") -> Cells:
    """Inverse of `encode_hilbert` with the same `bits` and `permute`; arguments and errors as in `decode_z_order`."""
    return _decode("decode_hilbert", codes, bits, permute, backend)


def _encode(where: str, cells: Tensor, bits: int, permute: Sequence[int], backend: str) -> Tensor:
    _check_options(where, bits, permute)
    require_tensor(where, "cells", cells, ("n", 3), (torch.int32, torch.int64), hint="Rows are [x, y, z], without the batch.")
    _check_range(where, "cells", cells, 1 << bits, f"Codes of {bits} bits an axis reach that far; bits=21 reaches 2,097,151.")
    ordered = cells if tuple(permute) == (0, 1, 2) else cells[:, list(permute)]
    ordered = ordered.int().contiguous()
    return SPACE_CURVE.run(backend, Call.of(cells), where, ordered, bits).to(CODE_DTYPE[bits])


def _decode(where: str, codes: Tensor, bits: int, permute: Sequence[int], backend: str) -> Tensor:
    _check_options(where, bits, permute)
    require_tensor(where, "codes", codes, ("n",), (torch.int32, torch.int64))
    _check_range(where, "codes", codes, 1 << 3 * bits, f"Codes have {3 * bits} bits with bits={bits}.")
    ordered = SPACE_CURVE.run(backend, Call.of(codes), where, codes.long().contiguous(), bits)
    back = [list(permute).index(axis) for axis in range(3)]
    return ordered if back == [0, 1, 2] else ordered[:, back].contiguous()


def _check_options(where: str, bits: int, permute: Sequence[int]) -> None:
    if bits not in CODE_DTYPE:
        raise RangeError(f"{where}: bits must be 10 (int32 codes) or 21 (int64 codes); got {describe(bits)}.")
    if sorted(permute) != [0, 1, 2]:
        raise RangeError(f"{where}: permute must be a permutation of (0, 1, 2); got {describe(permute)}.")


def _check_range(where: str, name: str, values: Tensor, limit: int, hint: str) -> None:
    if values.numel() == 0:
        return
    low, high = (int(v) for v in values.aminmax())
    if low < 0 or high >= limit:
        raise RangeError(f"{where}: {name} must lie in [0, {limit}); got values from {low} to {high}. {hint}")
