"""Spatial sparse attention as a layer: projections, compression, gate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import describe, require_int, require_same_device
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import DtypeError, RangeError
from voxgen.layers._checks import require_input
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.spatial_sparse_attention import spatial_sparse_attention

from .compression import Compression, compression_module
from .self_attention import split_channels

__all__ = ["SpatialSparseAttention"]


class SpatialSparseAttention(nn.Module):
    """Self-attention for very many tokens: each sees summaries of all blocks, a few whole blocks, and its window.

        out = proj_o(γ₀ · compression + γ₁ · selection + γ₂ · window),  γ = sigmoid(gate(x))

    The blocks that are seen whole are those whose summaries get most attention (`block_topk`). Use it where full attention
    is too dear: from about 2,000 tokens a sample on.

    Args:
        channels: width of a token.
        heads: query heads.
        kv_heads: key and value heads, a divisor of heads; the query heads of one share their choice of blocks.
        compression_block: side in cells of the blocks that are summarised; it divides selection_block. Half the side makes
            eight times as many summaries at most, and near a surface four times: this is what cost and quality depend on.
        selection_block: side of the blocks that are chosen.
        window: side of the windows.
        top_k: blocks that a query and key head choose; a sample with fewer gives all.
        head_channels: width of a head; None is channels / heads.
        shift: of the windows, in cells; transformers alternate between 0 and window / 2.
        compression: see `Compression`.
        own_block: True always chooses the block that a token lies in; the others by score. No released model does.
        backend: of the attention; see docs/backends.md.
    Parameters, named as in the published files (which call a convolution's weight `kernel`): `intra_block_pe` (m, m, m, g·d),
        m = compression_block, added to the keys of the compression branch alone by the place in the block, zeros at first,
        float32 in a half-precision torso; `proj_q.weight` (h·d, channels), `proj_k.weight`, `proj_v.weight` (g·d, channels),
        `proj_o.weight` (channels, h·d), `gate.0.weight` (3, channels), none with a bias; `compression_key.*`,
        `compression_value.*`. h, g, d are heads, kv_heads, width of a head; head i reads key head i // (h / g).
    Shape: x SparseTensor of n tokens → SparseTensor on the same grid.
    Raises:
        RangeError: heads or blocks that do not divide, sides or top_k below 1; by `forward`: a plan of another grid or of
        other sides.   ShapeError, DtypeError, DeviceError: x of another width, dtype or device than the weights.
    Differentiable; no gradient goes through the choice of blocks. Empty samples and tensors are legal.   Batch: samples do not
        see each other. Tokens may be in any order; moving all cells of a sample by a common multiple of the three sides
        changes nothing.
    Source: Direct3D-S2, Spatial Sparse Attention, as released; differences: batches, ties, own_block
        (`spatial_sparse_attention`); the constructor's defaults are those of the released v1.1 flows.
    Cost: n · (blocks + top_k · cells of a block + cells of a window). Memory O(n). Tables of a grid are built once and kept
        on it, so that all layers, steps and guidance passes on one grid share them.
    Example:
        >>> attention = SpatialSparseAttention(32, heads=4, kv_heads=2, compression_block=4, top_k=2)
        >>> attention(x).channels                                         # x: SparseTensor of 32 channels
        32
    """

    def __init__(
        self,
        channels: int = 1024,
        heads: int = 32,
        kv_heads: int = 2,
        compression_block: int = 8,
        selection_block: int = 8,
        window: int = 8,
        top_k: int = 8,
        *,
        head_channels: int | None = None,
        shift: int = 0,
        compression: Compression = "v1",
        own_block: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        where = "SpatialSparseAttention"
        if head_channels is None:
            head_channels = split_channels(where, channels, heads)
        self.channels = require_int(where, "channels", channels, 1)
        self.heads = require_int(where, "heads", heads, 1)
        self.kv_heads = require_int(where, "kv_heads", kv_heads, 1)
        self.head_channels = require_int(where, "head_channels", head_channels, 1)
        if heads % kv_heads:
            raise RangeError(f"{where}: kv_heads must divide the {heads} heads; got {kv_heads}.")
        self.compression_block = require_int(where, "compression_block", compression_block, 1, MAX_RESOLUTION)
        self.selection_block = require_int(where, "selection_block", selection_block, 1, MAX_RESOLUTION)
        if selection_block % compression_block:
            raise RangeError(f"{where}: compression_block must divide selection_block; got {compression_block} and {selection_block}.")
        self.window = require_int(where, "window", window, 1, MAX_RESOLUTION)
        self.top_k = require_int(where, "top_k", top_k, 1)
        self.shift = require_int(where, "shift", shift, 0, MAX_RESOLUTION)
        self.own_block = own_block
        self.backend = backend

        inner, shared = heads * head_channels, kv_heads * head_channels
        self.intra_block_pe = nn.Parameter(torch.zeros(*[compression_block] * 3, shared))
        self.proj_q = nn.Linear(channels, inner, bias=False)
        self.proj_k = nn.Linear(channels, shared, bias=False)
        self.proj_v = nn.Linear(channels, shared, bias=False)
        self.proj_o = nn.Linear(inner, channels, bias=False)
        self.compression_key = compression_module(where, compression, shared)
        self.compression_value = compression_module(where, compression, shared)
        self.gate = nn.Sequential(nn.Linear(channels, 3, bias=False), nn.Sigmoid())

    def plan(self, x: SparseTensor) -> SSAPlan:
        """The plan that `forward` makes for the tokens of x."""
        return SSAPlan.build(x.grid, compression_block=self.compression_block, selection_block=self.selection_block, window=self.window)

    def forward(self, x: SparseTensor, plan: SSAPlan | None = None) -> SparseTensor:
        """Attend.

        Args:
            x: tokens.
            plan: of x's grid, for these sides; None makes it from the tables that are kept on the grid.
        """
        require_input("SpatialSparseAttention", x, self.channels, self.proj_q.weight)
        plan = self.plan(x) if plan is None else self._checked(plan, x)
        q, k, v = (layer(x.feats) for layer in (self.proj_q, self.proj_k, self.proj_v))
        k_c = self.compression_key(x.with_feats(k + self._code(plan).to(k.dtype)), plan.compression).feats
        v_c = self.compression_value(x.with_feats(v), plan.compression).feats
        q, k, v, k_c, v_c = (rows.unflatten(1, (-1, self.head_channels)) for rows in (q, k, v, k_c, v_c))
        out = spatial_sparse_attention(
            q, k, v, k_c, v_c, self.gate(x.feats), plan, self.top_k, shift=self.shift, own_block=self.own_block, backend=self.backend
        )
        return x.with_feats(self.proj_o(out.flatten(1)))

    def _code(self, plan: SSAPlan) -> Float[Tensor, "n c"]:
        """The row of `intra_block_pe` for the place of each token in its block. Slots count x fastest."""
        by_slot = self.intra_block_pe.permute(2, 1, 0, 3).flatten(0, 2)
        return F.embedding(plan.compression.slot, by_slot)  # its gradient is a sum in a fixed order, on every device

    def _checked(self, plan: SSAPlan, x: SparseTensor) -> SSAPlan:
        where = "SpatialSparseAttention"
        if not isinstance(plan, SSAPlan):
            raise DtypeError(f"{where}: plan must be an SSAPlan or None; got {describe(plan)}.")
        require_same_device(where, x=x.feats, plan=plan.grid.coords)
        if not plan.grid.same_cells(x.grid):
            raise RangeError(
                f"{where}: plan must be of the grid of x; got one of {plan.grid!r} for {x.grid!r}. Build it with SSAPlan.build(x.grid)."
            )
        sides = plan.compression.factor[0], plan.selection.size[0], plan.window
        wanted = self.compression_block, self.selection_block, self.window
        if sides != wanted:
            raise RangeError(f"{where}: plan must have compression_block, selection_block, window {wanted}; got {sides}.")
        return plan

    def extra_repr(self) -> str:
        blocks = f"compression_block={self.compression_block}, selection_block={self.selection_block}, window={self.window}"
        return f"{self.channels}, heads={self.heads}, kv_heads={self.kv_heads}, {blocks}, top_k={self.top_k}, shift={self.shift}"
