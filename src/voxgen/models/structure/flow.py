"""StructureFlow: the dense transformer that makes latents of a StructureVAE."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import (
    Context,
    CrossAttention,
    DiTBlock,
    SelfAttention,
    TimestepEmbedder,
    absolute_embedding,
    grid_positions,
    modulation_layer,
    rope_phases,
)
from voxgen.attention.cross_attention import require_context
from voxgen.core.checks import FLOATS, require_choice, require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.layers import LayerNorm32, set_torso_dtype
from voxgen.models._flow_network import FlowNetwork

from .initialization import Initialization, initialize_flow

__all__ = ["PositionCode", "StructureFlow"]

PositionCode = Literal["ape", "rope"]
"""How tokens know where they are: "ape" adds an embedding to them, "rope" turns queries and keys."""


class StructureFlow(FlowNetwork):
    """Velocity of a dense latent cube, given time and condition tokens: a DiT on all patches of the cube.

    Args:
        resolution: side of the latent cube.
        in_channels: width of the noisy latent.
        model_channels: width of the transformer, a multiple of num_heads.
        cond_channels: width of a condition token.
        out_channels: width of the velocity.
        num_blocks, num_heads: depth, and attention heads.
        mlp_ratio: hidden width of the feed-forward halves over model_channels.
        patch_size: side of the patch that one token stands for; it divides resolution.
        pe_mode: see `PositionCode`.
        share_mod: shared modulation (TRELLIS.2) in place of each block's own; see `voxgen.attention.Modulation`.
        qk_rms_norm, qk_rms_norm_cross: norm of queries and keys in self- and cross-attention.
        initialization: see `Initialization`.
        torso_dtype: of the Linear layers inside the blocks; all else stays float32.
        checkpoint: recompute each block in the backward pass instead of keeping its intermediate results.
    Parameters: `t_embedder.mlp.{0, 2}`, `input_layer`, `blocks.{i}` as `DiTBlock`, `out_layer`; with share_mod
        `adaLN_modulation.1`. Buffer: with "ape" `pos_emb` (tokens, model_channels) float32, in the state dict as in the
        published files.
    Raises:
        RangeError, DtypeError: numbers that make no network.
    Source: the structure flows of TRELLIS ("ape") and TRELLIS.2 ("rope", share_mod), and Direct3D-S2's dense DiT ("ape");
        differences: none.
    Numerics: norms in float32; h takes the dtype of the blocks after the position code is added, and that of out_layer
        before the last norm (eps 1e-5).
    Cost: full attention over (resolution / patch_size)³ tokens.
    Example:
        >>> flow = StructureFlow(4, 8, 64, 40, 8, num_blocks=2, num_heads=2)
        >>> flow(torch.zeros(2, 8, 4, 4, 4), torch.tensor([1000.0, 500.0]), torch.zeros(2, 7, 40)).shape
        torch.Size([2, 8, 4, 4, 4])
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
        patch_size: int = 1,
        pe_mode: PositionCode = "ape",
        share_mod: bool = False,
        qk_rms_norm: bool = False,
        qk_rms_norm_cross: bool = False,
        initialization: Initialization = "vanilla",
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "StructureFlow"
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("cond_channels", cond_channels)):
            require_int(where, name, value, 1)
        require_int(where, "num_blocks", num_blocks, 0)
        require_choice(where, "pe_mode", pe_mode, ("ape", "rope"))
        self.resolution = require_int(where, "resolution", resolution, 1)
        self.patch_size = require_int(where, "patch_size", patch_size, 1)
        if resolution % patch_size:
            raise RangeError(f"{where}: patch_size must divide the resolution {resolution}; got {patch_size}.")
        self._fields = {
            "resolution": resolution,
            "in_channels": in_channels,
            "model_channels": model_channels,
            "cond_channels": cond_channels,
            "out_channels": out_channels,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "patch_size": patch_size,
            "pe_mode": pe_mode,
            "share_mod": share_mod,
            "qk_rms_norm": qk_rms_norm,
            "qk_rms_norm_cross": qk_rms_norm_cross,
            "initialization": initialization,
            "checkpoint": checkpoint,
        }
        self.in_channels = in_channels
        self.cond_channels = cond_channels
        self.model_channels = model_channels
        self.num_heads = num_heads
        self.pe_mode = pe_mode

        self.t_embedder = TimestepEmbedder(model_channels)
        if share_mod:
            self.adaLN_modulation = modulation_layer(model_channels)
        self.share_mod = share_mod
        self.input_layer = nn.Linear(in_channels * patch_size**3, model_channels)
        self.blocks = nn.ModuleList(
            DiTBlock(
                model_channels,
                SelfAttention(model_channels, num_heads, qk_rms_norm=qk_rms_norm),
                CrossAttention(model_channels, cond_channels, num_heads, qk_rms_norm=qk_rms_norm_cross),
                mlp_ratio=mlp_ratio,
                modulation="shared" if share_mod else "own",
                checkpoint=checkpoint,
            )
            for _ in range(num_blocks)
        )
        self.out_norm = LayerNorm32(model_channels, affine=False, eps=1e-5)
        self.out_layer = nn.Linear(model_channels, out_channels * patch_size**3)

        if pe_mode == "ape":
            self.register_buffer("pos_emb", self.position_code())
        initialize_flow(self, initialization, model_channels, num_blocks)
        set_torso_dtype(self.blocks, torso_dtype)

    def forward(self, x: Float[Tensor, "b c x y z"], t: Float[Tensor, " b"], context: Context) -> Float[Tensor, "b o x y z"]:
        """Velocity at noisy latents.

        Args:
            x: (b, in_channels, r, r, r) floats.
            t: (b,) floats, times on the scale from 0 to 1000.
            context: condition tokens of cond_channels, (b, m, c) or one (m_s, c) a sample; see `Context`.
        Returns:
            (b, out_channels, r, r, r) in the dtype of x. Differentiable.
        Raises:
            ShapeError, DtypeError, DeviceError: inputs that do not fit the network or each other.
        """
        where = "StructureFlow"
        side = self.resolution
        require_tensor(where, "x", x, ("b", self.in_channels, side, side, side), FLOATS, hint="The network is made for one resolution.")
        require_tensor(where, "t", t, (len(x),), FLOATS, hint="One time a sample.")
        require_context(where, context, len(x), self.cond_channels)

        p = self.patch_size
        tokens = rearrange(x, "b c (x i) (y j) (z k) -> b (x y z) (c i j k)", i=p, j=p, k=p)
        h = self.input_layer(tokens.to(self.input_layer.weight.dtype))
        phases = None
        if self.pe_mode == "ape":
            h = h + self.pos_emb
        else:
            phases = rope_phases(grid_positions(side // p, device=x.device), self.model_channels // self.num_heads)
        dtype = self.torso_dtype
        h = h.to(dtype)
        time = self.t_embedder(t)
        if self.share_mod:
            time = self.adaLN_modulation(time)
        condition = context.to(dtype) if isinstance(context, Tensor) else [tokens.to(dtype) for tokens in context]
        for block in self.blocks:
            h = block(h, time, condition, phases)
        h = self.out_layer(self.out_norm(h.to(self.out_layer.weight.dtype)))
        n = side // p
        return rearrange(h, "b (x y z) (c i j k) -> b c (x i) (y j) (z k)", x=n, y=n, z=n, i=p, j=p, k=p).to(x.dtype)

    def position_code(self, device: torch.device | str | None = None) -> Float[Tensor, "n c"]:
        """What `pos_emb` holds: the absolute embedding of every token's place, x slowest."""
        return absolute_embedding(grid_positions(self.resolution // self.patch_size, device=device), self.model_channels)
