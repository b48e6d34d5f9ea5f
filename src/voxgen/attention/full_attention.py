"""Full attention between dense batches of tokens."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import RangeError

__all__ = ["full_attention"]


def full_attention(
    q: Float[Tensor, "b n h d"], k: Float[Tensor, "b m g d"], v: Float[Tensor, "b m g e"], *, scale: float | None = None
) -> Float[Tensor, "b n h e"]:
    """Softmax attention of every query over all keys of its sample.

    Args:
        q: (b, n, h, d) floats, heads split.
        k: (b, m, g, d) of the dtype of q; m may differ from n. g divides h: query head i reads key head i // (h / g).
        v: (b, m, g, e) of the dtype of q.
        scale: factor of the scores; None means 1 / √d.
    Returns:
        (b, n, h, e) of the dtype of q. Without keys (m = 0) there is nothing to attend to and the result is 0.
        Differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: g does not divide h.
    No samples and no queries are legal.
    Source: torch's `scaled_dot_product_attention`, which picks the kernel; differences: tokens before heads, no keys.
    Example:
        >>> q = torch.zeros(1, 2, 4, 8)
        >>> k = v = torch.ones(1, 3, 2, 8)
        >>> full_attention(q, k, v).shape
        torch.Size([1, 2, 4, 8])
    """
    where = "full_attention"
    b, _, h, d = require_tensor(where, "q", q, ("b", "n", "h", "d"), FLOATS).shape
    _, m, g, _ = require_tensor(where, "k", k, (b, "m", "g", d), (q.dtype,), hint="As q but for tokens and heads.").shape
    require_tensor(where, "v", v, (b, m, g, "e"), (q.dtype,), hint="As k but for the width of a head.")
    require_same_device(where, q=q, k=k, v=v)
    if g == 0 or h % g:
        raise RangeError(f"{where}: key heads must divide query heads; got {g} and {h}.")
    if m == 0:
        return q.new_zeros(*q.shape[:3], v.shape[3])
    heads_first = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=scale, enable_gqa=g != h)
    return heads_first.transpose(1, 2)
