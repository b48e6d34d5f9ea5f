"""Full attention between the tokens of each sample of a ragged batch, and to a condition."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import describe, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.layers._checks import require_input
from voxgen.ops.ragged_attention import ragged_attention

from .cross_attention import Context, CrossProjections, require_context
from .packed_context import PackedContext, pack_context
from .self_attention import SelfProjections

__all__ = ["RaggedAttention", "RaggedCrossAttention"]


class RaggedAttention(SelfProjections):
    """Every token of a sample attends to every token of that sample; samples have any number of tokens.

    Args:
        channels: width of a token, a multiple of heads.
        heads: query heads, each channels / heads wide.
        kv_heads, qk_rms_norm, bias: as in `SelfAttention`.
        backend: see docs/backends.md.
    Parameters: as `SelfAttention`.
    Shape: x SparseTensor of n tokens, phases (n, d / 2, 2) of `rope_phases(x.grid.cells, d)` → SparseTensor on the same grid.
    Raises:
        RangeError: heads that do not divide.   ShapeError, DtypeError, DeviceError: x or phases that do not fit.
    Differentiable. Empty samples and tensors are legal.   Batch: samples do not see each other.
    Source: full attention of TRELLIS' sparse transformers and TRELLIS.2's latent flows; differences: grouped key heads.
    Cost: O(n²) time for each sample, O(n) memory.
    Example:
        >>> RaggedAttention(32, heads=4)(x).channels                      # x: SparseTensor of 32 channels
        32
        >>> turned = RaggedAttention(32, heads=4, qk_rms_norm=True)(x, rope_phases(x.grid.cells, 8))
    """

    def __init__(
        self,
        channels: int = 1024,
        heads: int = 32,
        *,
        kv_heads: int | None = None,
        qk_rms_norm: bool = False,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, heads, kv_heads=kv_heads, qk_rms_norm=qk_rms_norm, bias=bias)
        self.backend = backend

    def forward(self, x: SparseTensor, phases: Float[Tensor, "n d/2 2"] | None = None) -> SparseTensor:
        require_input("RaggedAttention", x, self.to_qkv.in_features, self.to_qkv.weight)
        q, k, v = self.project(x.feats, phases)
        return x.with_feats(self.merge(ragged_attention(q, k, v, x.grid.offsets, backend=self.backend)))


class RaggedCrossAttention(CrossProjections):
    """Every token of a sample attends to all condition tokens of that sample; both may be of any number.

    Args:
        channels: width of a token, a multiple of heads.
        context_channels: width of a condition token.
        heads: number of heads, each channels / heads wide.
        qk_rms_norm: scale queries and keys by `MultiHeadRMSNorm`.
        backend: see docs/backends.md.
    Parameters: as `CrossAttention`.
    Shape: x SparseTensor of b samples; context as `Context`, or packed once for several blocks (`pack_context`)
        → SparseTensor on the same grid. A sample without condition tokens gets the bias of `to_out`.
    Raises:
        RangeError: heads that do not divide.   ShapeError, DtypeError, DeviceError: x, or a context that does not fit it.
    Differentiable. Empty samples and tensors are legal.   Batch: samples do not see each other.
    Source: cross-attention of TRELLIS' sparse transformers, TRELLIS.2 and Direct3D-S2; differences: none.
    Example:
        >>> cross = RaggedCrossAttention(32, context_channels=24, heads=4)
        >>> samples = [torch.zeros(7, 24) for _ in range(x.grid.batch_size)]
        >>> cross(x, samples).channels                                    # x: SparseTensor of 32 channels
        32
    """

    def __init__(self, channels: int, context_channels: int, heads: int, *, qk_rms_norm: bool = False, backend: str = "auto") -> None:
        super().__init__(channels, context_channels, heads, qk_rms_norm=qk_rms_norm)
        self.backend = backend

    def forward(self, x: SparseTensor, context: Context | PackedContext) -> SparseTensor:
        where = "RaggedCrossAttention"
        require_input(where, x, self.to_q.in_features, self.to_q.weight)
        packed = self._pack(where, x, context)
        if packed.tokens.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise DtypeError(f"{where}: context must have the dtype of x, {x.dtype}; got {packed.tokens.dtype}. Convert with .to(dtype).")
        k, v = self.project_context(packed.tokens)
        out = ragged_attention(self.project_query(x.feats), k, v, x.grid.offsets, packed.offsets, backend=self.backend)
        return x.with_feats(self.merge(out))

    def _pack(self, where: str, x: SparseTensor, context: Context | PackedContext) -> PackedContext:
        width = self.to_kv.in_features
        if not isinstance(context, PackedContext):
            require_context(where, context, x.grid.batch_size, width)
            tokens = [context] if isinstance(context, Tensor) else context
            require_same_device(where, x=x.feats, **{f"context_{i}": t for i, t in enumerate(tokens)})
            if x.grid.batch_size == 0:
                return PackedContext(x.feats.new_zeros(0, width), x.grid.offsets)
            return pack_context(context)
        require_tensor(where, "context.tokens", context.tokens, ("m", width))
        require_same_device(where, x=x.feats, context=context.tokens)
        if context.batch_size != x.grid.batch_size:
            raise ShapeError(f"{where}: context must be of the {x.grid.batch_size} samples of x; got {describe(context.batch_size)}.")
        return context
