"""Checks that all kinds of block attention share, and the choice of an engine."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops._registry import Backend, Op, cpu_only, float_types, triton_device

from ._lists import Lists

BLOCK_ATTENTION = Op(
    "block_attention",
    [
        Backend("numba", "voxgen.ops.block_attention._numba:attend", (cpu_only, float_types(torch.float32, torch.float16, torch.bfloat16))),
        Backend(
            "triton",
            "voxgen.ops.block_attention._triton:attend",
            (triton_device, float_types(torch.float32, torch.float16, torch.bfloat16)),
        ),
        Backend("torch", "voxgen.ops.block_attention._torch:attend"),
        Backend("reference", "voxgen.ops.block_attention._reference:attend"),
    ],
)


class Attended(NamedTuple):
    """What attention gives.

    out: (n, H, d) of the dtype of q; 0 for a query that sees no key. Differentiable.
    lse: (n, H) natural logarithm of the sum of exp(scaled logits), float32 (float64 for float64), -inf where no key is
        seen. Not differentiable.
    """

    out: Float[Tensor, "n H d"]
    lse: Float[Tensor, "n H"]


def check_heads(where: str, q: Tensor, k: Tensor, v: Tensor, keys: int | str = "n_k") -> tuple[Tensor, Tensor, Tensor]:
    """Check queries, keys and values against each other; under autocast bring them to its dtype."""
    require_tensor(where, "q", q, ("n", "H", "d"), FLOATS)
    heads, width = q.shape[1:]
    require_tensor(where, "k", k, (keys, "Hk", width), FLOATS)
    require_tensor(where, "v", v, tuple(k.shape), FLOATS, hint="Values have the shape of the keys.")
    require_same_device(where, q=q, k=k, v=v)
    if k.shape[1] == 0 or heads == 0 or width == 0:
        raise ShapeError(f"{where}: there must be at least one head and one channel; got q {tuple(q.shape)} and k {tuple(k.shape)}.")
    if heads % k.shape[1]:
        raise ShapeError(
            f"{where}: the heads of q must be a multiple of those of k and v, which are shared evenly; got {heads} and {k.shape[1]}."
        )
    kind = q.device.type
    if torch.is_autocast_enabled(kind) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if k.dtype != q.dtype or v.dtype != q.dtype:
        raise DtypeError(f"{where}: q, k and v must have one dtype; got {q.dtype}, {k.dtype}, {v.dtype}. Convert with .to(dtype).")
    return q, k, v


def check_key_mask(where: str, mask: Tensor | None, q: Tensor) -> None:
    """Raise unless the mask is None or (n,) bool beside q."""
    if mask is not None:
        require_tensor(where, "key_mask", mask, (len(q),), (torch.bool,), hint="True for tokens that may be seen.")
        require_same_device(where, q=q, key_mask=mask)


def check_scale(where: str, scale: float | None, q: Tensor) -> float:
    """The factor of the logits; None is 1/√d."""
    if scale is None:
        return q.shape[2] ** -0.5
    if not math.isfinite(scale) or scale <= 0:
        raise RangeError(f"{where}: scale must be a finite number above 0; got {scale}.")
    return float(scale)


def run(backend: str, q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> Attended:
    """Choose an engine and call it. Autocast has done its work: inside, sums stay wide."""
    with torch.autocast(q.device.type, enabled=False):
        return Attended(*BLOCK_ATTENTION.engine(backend, q, k, v)(q, k, v, lists, scale))
