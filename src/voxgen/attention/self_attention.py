"""Self-attention: projections, q/k norm, rotary positions, heads; and the one of dense batches."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import RangeError

from .full_attention import full_attention
from .position import apply_rope
from .rms_norm import MultiHeadRMSNorm

__all__ = ["SelfAttention", "SelfProjections", "split_channels"]


class SelfProjections(nn.Module):
    """What every self-attention does with each token alone: queries, keys and values, and back from heads to tokens.

    Parameters, arguments and errors as in `SelfAttention`. A subclass puts a kernel between `project` and `merge`.
    """

    def __init__(self, channels: int, heads: int, *, kv_heads: int | None = None, qk_rms_norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        where = type(self).__name__
        self.head_channels = split_channels(where, channels, heads)
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else require_int(where, "kv_heads", kv_heads, 1)
        if heads % self.kv_heads:
            raise RangeError(f"{where}: kv_heads must divide the {heads} heads; got {self.kv_heads}.")
        self.to_qkv = nn.Linear(channels, (heads + 2 * self.kv_heads) * self.head_channels, bias=bias)
        self.q_rms_norm = MultiHeadRMSNorm(self.head_channels, heads) if qk_rms_norm else None
        self.k_rms_norm = MultiHeadRMSNorm(self.head_channels, self.kv_heads) if qk_rms_norm else None
        self.to_out = nn.Linear(channels, channels, bias=bias)

    def project(
        self, x: Float[Tensor, "... n c"], phases: Float[Tensor, "... n d/2 2"] | None = None
    ) -> tuple[Float[Tensor, "... n h d"], Float[Tensor, "... n g d"], Float[Tensor, "... n g d"]]:
        """Queries, keys and values of tokens, heads split, ready for a kernel."""
        qkv = self.to_qkv(x).unflatten(-1, (-1, self.head_channels))
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], -2)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
        if phases is not None:
            q, k = apply_rope(q, phases), apply_rope(k, phases)
        return q, k, v

    def merge(self, out: Float[Tensor, "... n h d"]) -> Float[Tensor, "... n c"]:
        """What the heads found, back to tokens."""
        return self.to_out(out.flatten(-2))


class SelfAttention(SelfProjections):
    """Every token of a sample attends to every token of that sample.

    For tokens on the cells of a grid there are `RaggedAttention` and `WindowAttention`, with the same parameters.

    Args:
        channels: width of a token, a multiple of heads.
        heads: query heads, each channels / heads wide.
        kv_heads: key and value heads, a divisor of heads; None means as many.
        qk_rms_norm: scale queries and keys by `MultiHeadRMSNorm`, before they are rotated.
        bias: whether the two Linear layers have one.
    Parameters: `to_qkv.{weight ((heads + 2 kv_heads) d, channels), bias}` for queries, keys, values in this order, heads split
        with d fastest; `to_out.{weight (channels, channels), bias}`; with the norm `q_rms_norm.gamma`, `k_rms_norm.gamma`.
    Shape: x (b, n, channels), phases (n, d / 2, 2) or (b, n, d / 2, 2) of `rope_phases` → (b, n, channels).
    Raises:
        RangeError: heads that do not divide.   ShapeError, DtypeError: x of another shape, or no floats.
    Source: the dense attention of TRELLIS, TRELLIS.2 and Direct3D-S2; differences: grouped key heads.
    Cost: O(n²) time, O(n) memory where torch has a fused kernel.
    Example:
        >>> SelfAttention(32, heads=4, qk_rms_norm=True)(torch.zeros(2, 5, 32)).shape
        torch.Size([2, 5, 32])
    """

    def forward(self, x: Float[Tensor, "b n c"], phases: Float[Tensor, "... n d/2 2"] | None = None) -> Float[Tensor, "b n c"]:
        require_tensor(type(self).__name__, "x", x, ("b", "n", self.to_qkv.in_features), FLOATS)
        return self.merge(full_attention(*self.project(x, phases)))


def split_channels(where: str, channels: int, heads: int) -> int:
    """Width of a head; RangeError unless it is whole."""
    require_int(where, "channels", channels, 1)
    require_int(where, "heads", heads, 1)
    if channels % heads:
        raise RangeError(f"{where}: channels must be a multiple of heads; got {channels} and {heads}.")
    return channels // heads
