"""The transformer block of the flows: modulated by time, conditioned by cross-attention."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_choice, require_tensor
from voxgen.core.errors import RangeError
from voxgen.layers import LayerNorm32
from voxgen.layers._checkpoint import run

from ._tokens import Tokens, dtype_of, feats_of, per_token, require_tokens, with_feats
from .cross_attention import Context
from .feed_forward import FeedForward
from .packed_context import PackedContext

__all__ = ["DiTBlock", "Modulation", "modulation_layer"]

Modulation = Literal["own", "shared"]
"""Where a block's shifts, scales and gates come from.

"own": a Linear layer of the block, from the time embedding (TRELLIS, Direct3D-S2). "shared": one Linear layer of the network,
plus a learned vector of the block (TRELLIS.2; a quarter of the parameters less).
"""

NORM_EPS = 1e-6
PARTS = 6
"""shift and scale before self-attention, its gate; shift and scale before the feed-forward half, its gate."""


def modulation_layer(channels: int) -> nn.Sequential:
    """SiLU and a Linear layer that starts at zero: (b, channels) time embedding to (b, 6 channels) modulations."""
    linear = nn.Linear(channels, PARTS * channels)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward half; time modulates the first and the last.

        x += gate1 · self_attn(norm1(x) · (1 + scale1) + shift1)
        x += cross_attn(norm2(x), context)
        x += gate2 · mlp(norm3(x) · (1 + scale2) + shift2)

    Args:
        channels: width of a token.
        self_attn: any module of tokens of this width: `SelfAttention` for dense batches; `RaggedAttention`, `WindowAttention` or
            `SpatialSparseAttention` for a SparseTensor.
        cross_attn: any module called with tokens and a context, such as `CrossAttention` or `RaggedCrossAttention`; None
            leaves that line out.
        mlp_ratio: hidden width of the feed-forward half over channels.
        modulation: see `Modulation`.
        checkpoint: recompute the block in the backward pass instead of keeping its intermediate results.
    Parameters: `self_attn.*`, `cross_attn.*`, `mlp.mlp.{0,2}.*`, `norm2.{weight, bias}` (with cross_attn), and
        `adaLN_modulation.1.{weight (6 channels, channels), bias}` or `modulation` (6 channels,). norm1 and norm3 have none.
    Shape: x (b, n, channels) or a SparseTensor of b samples; time (b, channels), the embedding, or with shared modulation
        (b, 6 channels), what `modulation_layer` made of it; context as `Context`; phases as the self-attention takes them
        → the same as x.
    Raises:
        ShapeError, DtypeError: x, time or context that do not fit.   RangeError: a context without cross-attention, or none
        with it.
    Source: the blocks of TRELLIS, TRELLIS.2 and Direct3D-S2; differences: none.
    Numerics: norms in float32; modulations in the dtype of their weights, rounded to that of x before they are used. A gate,
        scale and shift are one a sample: the samples of a batch do not mix.
    Example:
        >>> block = DiTBlock(32, SelfAttention(32, heads=4), CrossAttention(32, 24, heads=4))
        >>> block(torch.zeros(2, 5, 32), torch.zeros(2, 32), torch.zeros(2, 7, 24)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(
        self,
        channels: int,
        self_attn: nn.Module,
        cross_attn: nn.Module | None = None,
        *,
        mlp_ratio: float = 4.0,
        modulation: Modulation = "own",
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        require_choice("DiTBlock", "modulation", modulation, ("own", "shared"))
        self.channels = channels
        self.shared = modulation == "shared"
        if self.shared:
            self.modulation = nn.Parameter(torch.randn(PARTS * channels) / math.sqrt(channels))
        self.norm1 = LayerNorm32(channels, affine=False, eps=NORM_EPS)
        self.norm2 = None if cross_attn is None else LayerNorm32(channels, affine=True, eps=NORM_EPS)
        self.norm3 = LayerNorm32(channels, affine=False, eps=NORM_EPS)
        self.self_attn = self_attn
        self.cross_attn = cross_attn
        self.mlp = FeedForward(channels, mlp_ratio)
        if not self.shared:
            self.adaLN_modulation = modulation_layer(channels)
        self.checkpoint = checkpoint

    def forward(
        self, x: Tokens, time: Float[Tensor, "b e"], context: Context | PackedContext | None = None, phases: Tensor | None = None
    ) -> Tokens:
        where = "DiTBlock"
        samples = require_tokens(where, x, self.channels)
        width = PARTS * self.channels if self.shared else self.channels
        require_tensor(where, "time", time, (samples, width), FLOATS, hint="One row a sample.")
        if (context is None) != (self.cross_attn is None):
            raise RangeError(f"{where}: context must be given if and only if the block has cross-attention; got {type(context).__name__}.")
        return run(self.checkpoint, self._forward, x, time, context, phases)

    def _forward(self, x: Tokens, time: Tensor, context: Context | PackedContext | None, phases: Tensor | None) -> Tokens:
        h = feats_of(x)
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulations(time, h.dtype)
        rotated = () if phases is None else (phases,)
        modulated = self.norm1(h) * (1 + per_token(scale1, x)) + per_token(shift1, x)
        h = h + per_token(gate1, x) * feats_of(self.self_attn(with_feats(x, modulated), *rotated))
        if self.cross_attn is not None and self.norm2 is not None:
            h = h + feats_of(self.cross_attn(with_feats(x, self.norm2(h)), context))
        modulated = self.norm3(h) * (1 + per_token(scale2, x)) + per_token(shift2, x)
        return with_feats(x, h + per_token(gate2, x) * self.mlp(modulated))

    def _modulations(self, time: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        if self.shared:
            values = time + self.modulation
        else:
            values = self.adaLN_modulation(time.to(dtype_of(self.adaLN_modulation)))
        return values.to(dtype).chunk(PARTS, -1)
