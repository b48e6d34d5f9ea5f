"""SSDiT: the sparse transformer that makes latents of a sparse SDF autoencoder."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import (
    Compression,
    Context,
    DiTBlock,
    PackedContext,
    RaggedCrossAttention,
    SpatialSparseAttention,
    TimestepEmbedder,
    absolute_embedding,
)
from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, INTEGERS, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._flow_network import FlowNetwork, packed_condition
from voxgen.models.structure.initialization import initialize_flow

from .conditioning import SparseCondition

__all__ = ["SSDiT", "ShiftedBlocks"]

ShiftedBlocks = Literal["odd", "all", "none"]
"""Blocks whose windows are moved by half a window. Direct3D-S2: "odd"; its `use_shift=False` means "all"."""


class SSDiT(FlowNetwork):
    """Velocity of latents on the cells of a grid, given time and condition tokens: a DiT with spatial sparse attention.

    Args:
        resolution: cells along a side of the grid it is made for, for those who make the tokens. Nothing is computed from it;
            tokens on other grids are legal.
        in_channels: width of a noisy latent.
        model_channels: width of the transformer, a multiple of num_heads.
        cond_channels: width of a condition token.
        out_channels: width of the velocity.
        num_blocks: depth.
        num_heads, num_kv_heads: query heads, of cross-attention too, and key heads of self-attention.
        mlp_ratio: hidden width of the feed-forward halves over model_channels.
        window_size, compression_block_size, selection_block_size, topk, compression_version, own_block: as `window`,
            `compression_block`, `selection_block`, `top_k`, `compression`, `own_block` of `SpatialSparseAttention`.
        shifted: see `ShiftedBlocks`.
        sparse_conditions: condition tokens have positions (`sparse_condition`), which are added to them.
        factor: cells are multiplied by it before the position code, so that grids of several resolutions share one code.
        qk_rms_norm_cross: norm of queries and keys in cross-attention.
        torso_dtype: of all Linear layers and convolutions; norms and `intra_block_pe` stay float32.
        checkpoint: recompute each block in the backward pass instead of keeping its intermediate results.
    Parameters: `t_embedder.mlp.{0, 2}`, with sparse_conditions `cond_proj` (cond_channels to cond_channels), `input_layer`,
        `blocks.{i}` as `DiTBlock` with `SpatialSparseAttention` and `RaggedCrossAttention`, `out_layer`.
    Raises:
        RangeError, DtypeError: numbers that make no network.
    Empty samples and tensors are legal.   Batch: samples do not see each other, and each has its own time and condition.
    Source: Direct3D-S2's SparseDiT, both releases; differences: several samples and times in one batch; cond_channels may
        differ from model_channels with sparse_conditions.
    Numerics: the position code is rounded to torso_dtype and added there; the last norm (eps 1e-5) reads what the blocks give.
        Norms, softmax and sums are float32 inside.
    Cost: as `SpatialSparseAttention` a block. Blocks, windows and neighbours are found once for a grid and kept on it: pass
        tensors on one grid for all steps and guidance passes.
    Example:
        >>> flow = build("direct3d-s2/dit-512-v1.1", model_channels=48, cond_channels=24, num_blocks=2, num_heads=4, use_fp16=False)
        >>> noise = x.with_feats(torch.randn(len(x), 16))                 # x: SparseTensor of one sample
        >>> flow(noise, torch.tensor([1000.0]), torch.zeros(1, 7, 24)).channels
        16
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int,
        num_kv_heads: int = 2,
        *,
        mlp_ratio: float = 4.0,
        window_size: int = 8,
        shifted: ShiftedBlocks = "odd",
        compression_block_size: int = 8,
        selection_block_size: int = 8,
        topk: int = 8,
        compression_version: Compression = "v1",
        own_block: bool = False,
        sparse_conditions: bool = False,
        factor: float = 1.0,
        qk_rms_norm_cross: bool = False,
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "SSDiT"
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("cond_channels", cond_channels)):
            require_int(where, name, value, 1)
        require_int(where, "num_blocks", num_blocks, 0)
        require_choice(where, "shifted", shifted, ("odd", "all", "none"))
        if not 0 < factor < float("inf"):
            raise RangeError(f"{where}: factor must be a finite number above 0; got {factor}.")
        self._fields = {
            "resolution": resolution,
            "in_channels": in_channels,
            "model_channels": model_channels,
            "cond_channels": cond_channels,
            "out_channels": out_channels,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "mlp_ratio": mlp_ratio,
            "window_size": window_size,
            "shifted": shifted,
            "compression_block_size": compression_block_size,
            "selection_block_size": selection_block_size,
            "topk": topk,
            "compression_version": compression_version,
            "own_block": own_block,
            "sparse_conditions": sparse_conditions,
            "factor": factor,
            "qk_rms_norm_cross": qk_rms_norm_cross,
            "checkpoint": checkpoint,
        }
        self.resolution = require_int(where, "resolution", resolution, 1)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.cond_channels = cond_channels
        self.model_channels = model_channels
        self.factor = float(factor)
        self.sparse_conditions = sparse_conditions

        self.t_embedder = TimestepEmbedder(model_channels)
        if sparse_conditions:
            self.cond_proj = nn.Linear(cond_channels, cond_channels)
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList(
            DiTBlock(
                model_channels,
                SpatialSparseAttention(
                    model_channels,
                    num_heads,
                    num_kv_heads,
                    compression_block_size,
                    selection_block_size,
                    window_size,
                    topk,
                    shift=window_size // 2 if shifted == "all" or (shifted == "odd" and i % 2) else 0,
                    compression=compression_version,
                    own_block=own_block,
                ),
                RaggedCrossAttention(model_channels, cond_channels, num_heads, qk_rms_norm=qk_rms_norm_cross),
                mlp_ratio=mlp_ratio,
                checkpoint=checkpoint,
            )
            for i in range(num_blocks)
        )
        self.out_norm = LayerNorm32(model_channels, affine=False, eps=1e-5)
        self.out_layer = nn.Linear(model_channels, out_channels)
        initialize_flow(self, "vanilla", model_channels, num_blocks)
        set_torso_dtype(self, torso_dtype)

    def forward(self, x: SparseTensor, t: Float[Tensor, " b"], context: Context | SparseCondition) -> SparseTensor:
        """Velocity at noisy latents.

        Args:
            x: b samples of in_channels, floats.
            t: (b,) floats, times on the scale from 0 to 1000.
            context: with sparse_conditions a `SparseCondition` of b samples; else condition tokens of cond_channels, (b, m, c)
                or one (m_s, c) a sample (`Context`).
        Returns:
            out_channels on the grid of x, in the dtype of x. Differentiable.
        Raises:
            ShapeError, DtypeError, DeviceError: inputs that do not fit the network or each other.
        """
        where = "SSDiT"
        require_width(where, x, self.in_channels)
        require_tensor(where, "t", t, (x.grid.batch_size,), FLOATS, hint="One time a sample.")
        require_same_device(where, x=x.feats, t=t, weights=self.input_layer.weight)
        condition = self._condition(x, context)

        h = self.input_layer(x.feats.to(self.torso_dtype))
        h = x.with_feats(h + absolute_embedding(x.grid.cells * self.factor, self.model_channels).to(h.dtype))
        time = self.t_embedder(t)
        for block in self.blocks:
            h = block(h, time, condition)
        return x.with_feats(self.out_layer(self.out_norm(h.feats)).to(x.dtype))

    def _condition(self, x: SparseTensor, context: Context | SparseCondition) -> PackedContext:
        """Condition tokens as the blocks take them: checked, packed, projected and with their positions."""
        where, samples = "SSDiT", x.grid.batch_size
        if self.sparse_conditions != isinstance(context, SparseCondition):
            wanted = "a SparseCondition" if self.sparse_conditions else "a tensor (b, m, c) or a list of tensors (m, c)"
            raise DtypeError(
                f"{where}: context must be {wanted}, since sparse_conditions is {self.sparse_conditions}; got {type(context).__name__}."
            )
        tokens, positions = context if isinstance(context, SparseCondition) else (context, None)
        packed = packed_condition(where, x, tokens, self.cond_channels, self.torso_dtype)
        values, listed = packed.tokens, [tokens] if isinstance(tokens, Tensor) else tokens
        if positions is not None:
            if len(positions) != len(listed):
                raise ShapeError(f"{where}: context must have positions for each of the {len(listed)} samples; got {len(positions)}.")
            for i, (places, own) in enumerate(zip(positions, listed, strict=True)):
                require_tensor(where, f"context.positions[{i}]", places, (len(own), 3), (*INTEGERS, *FLOATS), hint="One row a token.")
            values = self.cond_proj(values)
            if samples:
                values = values + absolute_embedding(torch.cat(list(positions)), self.cond_channels).to(values.dtype)
        return PackedContext(values, packed.offsets)

    @property
    def torso_dtype(self) -> torch.dtype:
        """Dtype in which the network computes."""
        return self.input_layer.weight.dtype
