"""Floats to bytes and back, as the files store them.

The default rounds to the nearest byte. `compat="trellis2"` truncates like the original: decoded values lie 0.5 / 255 too low
on average and up to 1 / 255 off, where rounding is unbiased and at most 0.5 / 255 off. Decoding is the same for both, but for
normals. In both modes decoding and encoding again gives the same byte, for every byte.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from voxgen.core.aliases import ByteRows, EdgeFlags, Feats
from voxgen.core.checks import FLOATS, require_choice, require_finite, require_tensor
from voxgen.core.errors import RangeError

Compat: TypeAlias = Literal["trellis2"] | None


def quantize_dual(dual_vertices: Feats, *, compat: Compat = None) -> ByteRows:
    """Local dual vertices → bytes.

    Args:
        dual_vertices: (n, 3) float, position inside the cell; clamped to [0, 1], which is all that a byte can hold.
        compat: "trellis2" truncates.
    Returns:
        (n, 3) uint8, on the input's device. Not differentiable.
    Raises:
        RangeError: NaN or infinity.   ShapeError, DtypeError: another shape or dtype.
    Source: TRELLIS.2 data tools (clamp, × 255, truncate). Difference: rounding by default.
    Example:
        >>> v = torch.tensor([[0.0, 0.5, 0.999]])
        >>> quantize_dual(v).tolist(), quantize_dual(v, compat="trellis2").tolist()
        ([[0, 128, 255]], [[0, 127, 254]])
    """
    return _to_bytes("quantize_dual", "dual_vertices", dual_vertices, 3, compat, signed=False)


def dequantize_dual(data: ByteRows) -> Feats:
    """(n, 3) uint8 → float32 in [0, 1], byte / 255."""
    return _unit("dequantize_dual", data, 3)


def quantize_attribute(values: Feats, *, compat: Compat = None) -> ByteRows:
    """Material values in [0, 1] → bytes; values outside are clamped. Arguments and errors as `quantize_dual`, any width."""
    return _to_bytes("quantize_attribute", "values", values, "c", compat, signed=False)


def dequantize_attribute(data: ByteRows) -> Feats:
    """(n, c) uint8 → float32 in [0, 1], byte / 255."""
    return _unit("dequantize_attribute", data, "c")


def quantize_normal(normals: Feats, *, compat: Compat = None) -> ByteRows:
    """Components in [-1, 1] → bytes of (n / 2 + 1 / 2) × 255; arguments and errors as `quantize_dual`. Lengths are not changed."""
    return _to_bytes("quantize_normal", "normals", normals, 3, compat, signed=True)


def dequantize_normal(data: ByteRows, *, compat: Compat = None) -> Feats:
    """(n, 3) uint8 → float32 in [-1, 1], byte / 255 × 2 - 1. Lengths differ from 1 by the quantisation.

    Args:
        compat: the mode the bytes were made with. With "trellis2", values whose float32 rounding would truncate to the byte
            below are the next float32 above (6e-8 larger), so that encoding them again gives the same byte.
    """
    decoded = _unit("dequantize_normal", data, 3) * 2 - 1
    if compat is None:
        return decoded
    require_choice("dequantize_normal", "compat", compat, ("trellis2",))
    sinks = _truncate(decoded * 0.5 + 0.5) < data
    return torch.where(sinks, torch.nextafter(decoded, torch.full_like(decoded, 2.0)), decoded)


def attribute_to_network(data: ByteRows) -> Feats:
    """(n, c) uint8 materials → what a material network reads: float32 in [-1, 1], byte / 255 × 2 - 1."""
    return _unit("attribute_to_network", data, "c") * 2 - 1


def network_to_attribute(output: Feats) -> Feats:
    """A material network's output → material values, x / 2 + 1 / 2, nominally in [0, 1]; not clamped. Differentiable."""
    require_tensor("network_to_attribute", "output", output, ("n", "c"), FLOATS)
    return output * 0.5 + 0.5


def pack_edge_flags(flags: EdgeFlags) -> ByteRows:
    """(n, 3) bool, edges along x, y, z → (n, 1) uint8, x + 2 y + 4 z."""
    require_tensor("pack_edge_flags", "flags", flags, ("n", 3), (torch.bool,))
    weights = torch.tensor([1, 2, 4], dtype=torch.uint8, device=flags.device)
    return (flags * weights).sum(1, keepdim=True, dtype=torch.uint8)


def unpack_edge_flags(data: ByteRows) -> EdgeFlags:
    """Inverse of `pack_edge_flags`.

    Raises:
        RangeError: a byte above 7.   ShapeError, DtypeError: not (n, 1) uint8.
    """
    require_tensor("unpack_edge_flags", "data", data, ("n", 1), (torch.uint8,))
    if len(data) and int(data.max()) > 7:
        raise RangeError(f"unpack_edge_flags: data must lie in [0, 7], one bit an axis; got {int(data.max())}. Is it another attribute?")
    bits = torch.tensor([0, 1, 2], dtype=torch.uint8, device=data.device)
    return (data >> bits & 1).bool()


def _to_bytes(where: str, name: str, values: Tensor, width: int | str, compat: Compat, *, signed: bool) -> Tensor:
    require_tensor(where, name, values, ("n", width), FLOATS)
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
    require_finite(where, name, values)
    values = values.detach()
    # half types have too few bits for 255 steps times the products below
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    unit = values * 0.5 + 0.5 if signed else values
    return _truncate(unit) if compat == "trellis2" else (unit.clamp(0, 1) * 255).round().to(torch.uint8)


def _truncate(unit: Tensor) -> Tensor:
    return (unit.clamp(0, 1) * 255).to(torch.uint8)


def _unit(where: str, data: Tensor, width: int | str) -> Tensor:
    require_tensor(where, "data", data, ("n", width), (torch.uint8,))
    return data.float() / 255
