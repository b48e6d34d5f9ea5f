"""Cross-attention to a condition: projections, q/k norm, heads; and the one of dense batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, describe, require_tensor
from voxgen.core.errors import DtypeError, ShapeError

from .full_attention import full_attention
from .rms_norm import MultiHeadRMSNorm
from .self_attention import split_channels

__all__ = ["Context", "CrossAttention", "CrossProjections", "require_context"]

Context: TypeAlias = Tensor | Sequence[Tensor]
"""Condition tokens: (b, m, c) where all samples have equally many, else one (m_s, c) tensor a sample; m may be 0."""


class CrossProjections(nn.Module):
    """What every cross-attention does with each token alone: queries, keys and values, and back from heads to tokens.

    Parameters, arguments and errors as in `CrossAttention`. A subclass puts a kernel between the projections and `merge`.
    """

    def __init__(self, channels: int, context_channels: int, heads: int, *, qk_rms_norm: bool = False) -> None:
        super().__init__()
        self.head_channels = split_channels(type(self).__name__, channels, heads)
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels, 2 * channels)
        self.q_rms_norm = MultiHeadRMSNorm(self.head_channels, heads) if qk_rms_norm else None
        self.k_rms_norm = MultiHeadRMSNorm(self.head_channels, heads) if qk_rms_norm else None
        self.to_out = nn.Linear(channels, channels)

    def project_query(self, x: Float[Tensor, "... n c"]) -> Float[Tensor, "... n h d"]:
        """Queries of tokens, heads split."""
        q = self.to_q(x).unflatten(-1, (-1, self.head_channels))
        return q if self.q_rms_norm is None else self.q_rms_norm(q)

    def project_context(self, context: Float[Tensor, "... m c"]) -> tuple[Float[Tensor, "... m h d"], Float[Tensor, "... m h d"]]:
        """Keys and values of condition tokens, heads split."""
        k, v = self.to_kv(context).unflatten(-1, (2, -1, self.head_channels)).unbind(-3)
        return (k if self.k_rms_norm is None else self.k_rms_norm(k)), v

    def merge(self, out: Float[Tensor, "... n h d"]) -> Float[Tensor, "... n c"]:
        """What the heads found, back to tokens."""
        return self.to_out(out.flatten(-2))


class CrossAttention(CrossProjections):
    """Every token of a sample attends to all condition tokens of that sample.

    For tokens on the cells of a grid there is `RaggedCrossAttention`, with the same parameters.

    Args:
        channels: width of a token, a multiple of heads.
        context_channels: width of a condition token.
        heads: number of heads, each channels / heads wide.
        qk_rms_norm: scale queries and keys by `MultiHeadRMSNorm`.
    Parameters: `to_q.{weight (channels, channels), bias}`, `to_kv.{weight (2 channels, context_channels), bias}` for keys, then
        values, heads split with d fastest; `to_out.{weight (channels, channels), bias}`; with the norm `q_rms_norm.gamma`,
        `k_rms_norm.gamma`.
    Shape: x (b, n, channels), context as `Context` → (b, n, channels). A sample without condition tokens gets the bias of
        `to_out`. Each sample has the same result in any batch.
    Raises:
        RangeError: heads that do not divide.   ShapeError, DtypeError, DeviceError: a context that does not fit x.
    Source: the cross-attention of TRELLIS, TRELLIS.2 and Direct3D-S2; differences: none.
    Example:
        >>> attention = CrossAttention(32, context_channels=24, heads=4)
        >>> attention(torch.zeros(2, 5, 32), [torch.zeros(7, 24), torch.zeros(0, 24)]).shape
        torch.Size([2, 5, 32])
    """

    def forward(self, x: Float[Tensor, "b n c"], context: Context) -> Float[Tensor, "b n c"]:
        where = type(self).__name__
        require_tensor(where, "x", x, ("b", "n", self.to_q.in_features), FLOATS)
        require_context(where, context, len(x), self.to_kv.in_features)
        q = self.project_query(x)
        if isinstance(context, Tensor):
            return self.merge(full_attention(q, *self.project_context(context)))
        # One call a sample instead of a mask: fused kernels serve it, and no sample depends on the longest of the batch.
        keys_and_values = (self.project_context(tokens[None]) for tokens in context)
        parts = [full_attention(q[i : i + 1], k, v) for i, (k, v) in enumerate(keys_and_values)]
        return self.merge(torch.cat(parts) if parts else torch.zeros_like(q))


def require_context(where: str, context: Context, batch_size: int, channels: int) -> None:
    """Raise unless `context` holds condition tokens of this width for this many samples."""
    if isinstance(context, Tensor):
        require_tensor(
            where, "context", context, (batch_size, "m", channels), FLOATS, hint="Unequal lengths? Give a list, one (m, c) a sample."
        )
        return
    if not isinstance(context, Sequence):
        raise DtypeError(f"{where}: context must be a tensor (b, m, c) or a list of tensors (m, c), one a sample; got {describe(context)}.")
    if len(context) != batch_size:
        raise ShapeError(f"{where}: context must have one tensor for each of the {batch_size} samples; got {len(context)}.")
    for i, tokens in enumerate(context):
        require_tensor(where, f"context[{i}]", tokens, ("m", channels), FLOATS)
