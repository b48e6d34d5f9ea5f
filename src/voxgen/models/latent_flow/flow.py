"""LatentFlow: the transformer that makes sparse latents, with full, window or spatial sparse attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import (
    Context,
    DiTBlock,
    RaggedAttention,
    RaggedCrossAttention,
    SpatialSparseAttention,
    TimestepEmbedder,
    WindowAttention,
    absolute_embedding,
    modulation_layer,
    rope_phases,
)
from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.layers import LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._flow_network import FlowNetwork, joined, packed_condition
from voxgen.models.structure.flow import PositionCode
from voxgen.models.structure.initialization import Initialization, initialize_flow
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel

__all__ = ["Attention", "LatentFlow"]

Attention = Literal["full", "window", "ssa"]
"""Which tokens a token attends to: all of its sample, those of its window (every second block shifted by half a window), or
window, summaries and selected blocks (`SpatialSparseAttention`)."""


class LatentFlow(FlowNetwork):
    """Velocity of latents on the cells of a grid, given time and condition tokens: a sparse DiT.

    Args:
        resolution: cells along a side of the grid it is made for, for those who make the tokens. Nothing is computed from it:
            tokens on other grids are legal.
        in_channels: width of what a token reads: the noisy latent, and behind it that of `concat_cond`.
        model_channels: width of the transformer, a multiple of num_heads.
        cond_channels: width of a condition token.
        out_channels: width of the velocity.
        num_blocks, num_heads: depth, and attention heads.
        mlp_ratio: hidden width of the feed-forward halves over model_channels.
        attention: see `Attention`.
        attention_options: further arguments of the attention: `window` of `WindowAttention`, or those of
            `SpatialSparseAttention` (kv_heads, window, top_k, …).
        pe_mode: "rope" turns queries and keys by their cells ("full" only), "ape" adds an embedding of the cells to the tokens.
        rope_freq: (a, b) of the rotation's frequencies a / b^(i / F).
        share_mod: shared modulation (TRELLIS.2) in place of each block's own; see `voxgen.attention.Modulation`.
        qk_rms_norm, qk_rms_norm_cross: norm of queries and keys in self- and cross-attention.
        patch_size: cells along a side of a token. Above 1 the cells of a patch are one token: their channels side by side, and which of
            them exist. A patch of 2 takes about a quarter of the tokens.
        initialization: see `voxgen.models.structure.initialization.Initialization`.
        torso_dtype: of the Linear layers inside the blocks; all else stays float32.
        checkpoint: recompute each block in the backward pass instead of keeping its intermediate results.
    Parameters: `t_embedder.mlp.{0, 2}`, `input_layer`, `blocks.{i}` as `DiTBlock`, `out_layer`; with share_mod
        `adaLN_modulation.1`.
    Raises:
        RangeError, DtypeError: numbers that make no network.
    Empty samples and tensors are legal.   Batch: samples do not see each other, and each has its own time and condition.
    Source: the latent flows of TRELLIS.2 (arXiv 2512.14692): attention="full", pe_mode="rope", share_mod. Differences: the
        choice of attention, patches (which TRELLIS.2 has for dense structures only), and empty samples.
    Numerics: norms in float32; the velocity is computed in the dtype of out_layer after a norm with eps 1e-5.
    Cost: as the attention a block. Tables of the grid are made once and kept on it: pass tensors on one grid for all steps.
    Example:
        >>> flow = LatentFlow(32, 8, 48, 24, 8, num_blocks=2, num_heads=4)
        >>> noise = x.with_feats(torch.randn(len(x), 8))                  # x: SparseTensor of one sample
        >>> flow(noise, torch.tensor([1000.0]), torch.zeros(1, 7, 24)).channels
        8
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
        *,
        mlp_ratio: float = 4.0,
        attention: Attention = "full",
        attention_options: Mapping[str, Any] | None = None,
        pe_mode: PositionCode = "rope",
        rope_freq: tuple[float, float] = (1.0, 10_000.0),
        share_mod: bool = True,
        qk_rms_norm: bool = True,
        qk_rms_norm_cross: bool = True,
        patch_size: int = 1,
        initialization: Initialization = "scaled",
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "LatentFlow"
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("cond_channels", cond_channels)):
            require_int(where, name, value, 1)
        require_int(where, "num_blocks", num_blocks, 0)
        require_choice(where, "attention", attention, ("full", "window", "ssa"))
        require_choice(where, "pe_mode", pe_mode, ("ape", "rope"))
        options = dict(attention_options or {})
        if pe_mode == "rope" and attention != "full":
            raise RangeError(f"{where}: pe_mode='rope' is for attention='full'; with {attention!r} use pe_mode='ape'.")
        if attention == "ssa" and qk_rms_norm:
            raise RangeError(f"{where}: attention='ssa' has no norm of queries and keys; pass qk_rms_norm=False.")
        self._fields = {
            "resolution": require_int(where, "resolution", resolution, 1),
            "in_channels": in_channels,
            "model_channels": model_channels,
            "cond_channels": cond_channels,
            "out_channels": out_channels,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "attention": attention,
            "attention_options": options,
            "pe_mode": pe_mode,
            "rope_freq": list(rope_freq),
            "share_mod": share_mod,
            "qk_rms_norm": qk_rms_norm,
            "qk_rms_norm_cross": qk_rms_norm_cross,
            "patch_size": require_int(where, "patch_size", patch_size, 1),
            "initialization": initialization,
            "checkpoint": checkpoint,
        }
        self.resolution = resolution
        self.in_channels = in_channels
        self.cond_channels = cond_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.head_channels = model_channels // require_int(where, "num_heads", num_heads, 1)
        self.pe_mode = pe_mode
        self.rope_freq = (float(rope_freq[0]), float(rope_freq[1]))

        self.t_embedder = TimestepEmbedder(model_channels)
        if share_mod:
            self.adaLN_modulation = modulation_layer(model_channels)
        self.share_mod = share_mod
        self.patch_size = patch_size
        cells = patch_size**3
        self.input_layer = nn.Linear(in_channels * cells + (cells if cells > 1 else 0), model_channels)
        self.blocks = nn.ModuleList(
            DiTBlock(
                model_channels,
                _attention(attention, model_channels, num_heads, qk_rms_norm, i, options),
                RaggedCrossAttention(model_channels, cond_channels, num_heads, qk_rms_norm=qk_rms_norm_cross),
                mlp_ratio=mlp_ratio,
                modulation="shared" if share_mod else "own",
                checkpoint=checkpoint,
            )
            for i in range(num_blocks)
        )
        self.out_norm = LayerNorm32(model_channels, affine=False, eps=1e-5)
        self.out_layer = nn.Linear(model_channels, out_channels * cells)
        initialize_flow(self, initialization, model_channels, num_blocks)
        set_torso_dtype(self.blocks, torso_dtype)

    def forward(self, x: SparseTensor, t: Float[Tensor, " b"], context: Context, concat_cond: SparseTensor | None = None) -> SparseTensor:
        """Velocity at noisy latents.

        Args:
            x: b samples of noisy latents, floats.
            t: (b,) floats, times on the scale from 0 to 1000.
            context: condition tokens of cond_channels, (b, m, c) or one (m_s, c) a sample; see `Context`.
            concat_cond: more channels on the same cells, put behind those of x: the normalised shape latent of a material flow.
                Together they have in_channels.
        Returns:
            out_channels on the grid of x, in the dtype of x. Differentiable.
        Raises:
            ShapeError, DtypeError, DeviceError: inputs that do not fit the network or each other.
        """
        where = "LatentFlow"
        tokens = joined(where, x, concat_cond)
        require_width(where, tokens, self.in_channels)
        require_tensor(where, "t", t, (x.grid.batch_size,), FLOATS, hint="One time a sample.")
        require_same_device(where, x=x.feats, t=t, weights=self.input_layer.weight)
        condition = packed_condition(where, x, context, self.cond_channels, self.torso_dtype)

        patches = None if self.patch_size == 1 else Structure.of_children(x.grid, self.patch_size)
        if patches is not None:
            tokens = SparseTensor(patches.parents, torch.cat((space_to_channel(tokens.feats, patches), patches.mask().to(x.dtype)), 1))
        h = self.input_layer(tokens.feats.to(self.input_layer.weight.dtype))
        phases: tuple[Tensor, ...] = ()
        if self.pe_mode == "ape":
            h = h + absolute_embedding(tokens.grid.cells, self.model_channels)
        else:
            phases = (rope_phases(tokens.grid.cells, self.head_channels, self.rope_freq),)
        time = self.t_embedder(t)
        if self.share_mod:
            time = self.adaLN_modulation(time)
        state = tokens.with_feats(h.to(self.torso_dtype))
        for block in self.blocks:
            state = block(state, time, condition, *phases)
        h = self.out_layer(self.out_norm(state.feats.to(self.out_layer.weight.dtype)))
        return x.with_feats((h if patches is None else channel_to_space(h, patches)).to(x.dtype))


def _attention(kind: Attention, channels: int, heads: int, qk_rms_norm: bool, index: int, options: Mapping[str, Any]) -> nn.Module:
    if kind == "full":
        return RaggedAttention(channels, heads, qk_rms_norm=qk_rms_norm, **options)
    if kind == "window":
        window = options.get("window", 8)
        return WindowAttention(
            channels, heads, qk_rms_norm=qk_rms_norm, **{"shift": window // 2 * (index % 2), **options, "window": window}
        )
    window = options.get("window", 8)
    return SpatialSparseAttention(channels, heads, **{"shift": window // 2 * (index % 2), **options})
