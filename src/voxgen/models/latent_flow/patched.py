"""PatchedLatentFlow: a latent flow whose transformer runs on a coarser grid, between stages of residual blocks with long skips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import Context, DiTBlock, RaggedAttention, RaggedCrossAttention, TimestepEmbedder, absolute_embedding
from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.layers import LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._flow_network import FlowNetwork, joined, packed_condition
from voxgen.models.structure.initialization import initialize_flow
from voxgen.ops.resample import Structure

from .residual import TimedResidualBlock

__all__ = ["PatchedLatentFlow"]


class PatchedLatentFlow(FlowNetwork):
    """Velocity of latents on the cells of a grid: residual blocks halve the grid, a sparse DiT runs there, residual blocks go back.

    Args:
        resolution: cells along a side of the grid it is made for. Nothing is computed from it.
        in_channels: width of a noisy latent, and of what is joined to it.   out_channels: of the velocity.
        model_channels: width of the transformer, a multiple of num_heads.
        cond_channels: width of a condition token.
        num_blocks, num_heads: depth of the transformer, and attention heads.
        io_block_channels: widths of the stages before and after it, fine → coarse, at least one; each halves the grid.
        num_io_res_blocks: residual blocks of a stage, the one that changes the level included.
        mlp_ratio: hidden width of the feed-forward halves over model_channels.
        qk_rms_norm, qk_rms_norm_cross: norm of queries and keys in self- and cross-attention.
        use_skip_connection: join the input blocks' results to the inputs of the output blocks.
        torso_dtype: of Linear layers and convolutions in all blocks; all else stays float32.
        checkpoint: recompute each transformer block in the backward pass.
    Parameters: `t_embedder.mlp.{0, 2}`, `input_layer`, `input_blocks.{i}` and `out_blocks.{i}` as `TimedResidualBlock`, `blocks.{i}`
        as `DiTBlock`, `out_layer`.
    Raises:
        RangeError, DtypeError: numbers that make no network.
    Empty samples and tensors are legal.   Batch: samples do not see each other.
    Source: the latent flow of TRELLIS (arXiv 2412.01506), `SLatFlowModel`. Differences: several stages work (the original fails with
        two); no hidden cache of structures.
    Numerics: means over children divide by one more than there are, as the published weights need; norms in float32, the last one's
        result in torso_dtype.
    Cost: full attention over the coarse cells.
    Example:
        >>> flow = PatchedLatentFlow(16, 4, 48, 24, 4, 2, 4, io_block_channels=(16,))
        >>> noise = x.with_feats(torch.randn(len(x), 4))                  # x: SparseTensor of one sample
        >>> flow(noise, torch.tensor([1000.0]), torch.zeros(1, 7, 24)).channels
        4
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
        io_block_channels: Sequence[int] = (128,),
        num_io_res_blocks: int = 2,
        mlp_ratio: float = 4.0,
        qk_rms_norm: bool = True,
        qk_rms_norm_cross: bool = False,
        use_skip_connection: bool = True,
        torso_dtype: torch.dtype = torch.float32,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "PatchedLatentFlow"
        widths = tuple(require_int(where, "io_block_channels", c, 1) for c in io_block_channels)
        if not widths:
            raise RangeError(f"{where}: io_block_channels must have at least one width; without stages use LatentFlow.")
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("cond_channels", cond_channels)):
            require_int(where, name, value, 1)
        depth = require_int(where, "num_io_res_blocks", num_io_res_blocks, 1)
        self._fields = {
            "resolution": require_int(where, "resolution", resolution, 1),
            "in_channels": in_channels,
            "model_channels": model_channels,
            "cond_channels": cond_channels,
            "out_channels": out_channels,
            "num_blocks": require_int(where, "num_blocks", num_blocks, 0),
            "num_heads": num_heads,
            "io_block_channels": list(widths),
            "num_io_res_blocks": num_io_res_blocks,
            "mlp_ratio": mlp_ratio,
            "qk_rms_norm": qk_rms_norm,
            "qk_rms_norm_cross": qk_rms_norm_cross,
            "use_skip_connection": use_skip_connection,
            "checkpoint": checkpoint,
        }
        self.resolution = resolution
        self.in_channels = in_channels
        self.cond_channels = cond_channels
        self.out_channels = out_channels
        self.model_channels = model_channels
        self.depth, self.stages = depth, len(widths)
        self.use_skip_connection = use_skip_connection

        self.t_embedder = TimestepEmbedder(model_channels)
        self.input_layer = nn.Linear(in_channels, widths[0])
        self.input_blocks, self.out_blocks = nn.ModuleList(), nn.ModuleList()
        ends = (*widths, model_channels)
        for width, below in pairwise(ends):
            self.input_blocks.extend(TimedResidualBlock(width, width, model_channels) for _ in range(depth - 1))
            self.input_blocks.append(TimedResidualBlock(width, below, model_channels))
        self.blocks = nn.ModuleList(
            DiTBlock(
                model_channels,
                RaggedAttention(model_channels, num_heads, qk_rms_norm=qk_rms_norm),
                RaggedCrossAttention(model_channels, cond_channels, num_heads, qk_rms_norm=qk_rms_norm_cross),
                mlp_ratio=mlp_ratio,
                checkpoint=checkpoint,
            )
            for _ in range(num_blocks)
        )
        join = 2 if use_skip_connection else 1
        for width, below in reversed(list(pairwise(ends))):
            self.out_blocks.append(TimedResidualBlock(join * below, width, model_channels))
            self.out_blocks.extend(TimedResidualBlock(join * width, width, model_channels) for _ in range(depth - 1))
        self.out_norm = LayerNorm32(widths[0], affine=False, eps=1e-5)
        self.out_layer = nn.Linear(widths[0], out_channels)
        initialize_flow(self, "vanilla", model_channels, num_blocks)
        for part in (self.input_blocks, self.blocks, self.out_blocks):
            set_torso_dtype(part, torso_dtype)

    def forward(self, x: SparseTensor, t: Float[Tensor, " b"], context: Context, concat_cond: SparseTensor | None = None) -> SparseTensor:
        """Velocity at noisy latents; arguments, result and errors as `LatentFlow.forward`."""
        where = "PatchedLatentFlow"
        tokens = joined(where, x, concat_cond)
        require_width(where, tokens, self.in_channels)
        require_tensor(where, "t", t, (x.grid.batch_size,), FLOATS, hint="One time a sample.")
        require_same_device(where, x=x.feats, t=t, weights=self.input_layer.weight)
        condition = packed_condition(where, x, context, self.cond_channels, self.torso_dtype)
        time = self.t_embedder(t)
        h = x.with_feats(self.input_layer(tokens.feats.to(self.input_layer.weight.dtype)).to(self.torso_dtype))
        h, skips, structures = self._down(h, time)
        h = h.with_feats(h.feats + absolute_embedding(h.grid.cells, self.model_channels).to(h.dtype))
        for block in self.blocks:
            h = block(h, time, condition)
        h = self._up(h, time, skips, structures)
        return x.with_feats(self.out_layer(self.out_norm(h.feats).to(self.out_layer.weight.dtype)).to(x.dtype))

    def _down(self, h: SparseTensor, time: Tensor) -> tuple[SparseTensor, list[SparseTensor], list[Structure]]:
        """The coarse tokens, each block's result, and the structure of each stage."""
        skips: list[SparseTensor] = []
        structures: list[Structure] = []
        for i, block in enumerate(self.input_blocks):
            if i % self.depth == self.depth - 1:
                structures.append(Structure.of_children(h.grid))
                h = block(h, time, down=structures[-1])
            else:
                h = block(h, time)
            skips.append(h)
        return h, skips, structures

    def _up(self, h: SparseTensor, time: Tensor, skips: list[SparseTensor], structures: list[Structure]) -> SparseTensor:
        for i, block in enumerate(self.out_blocks):
            if self.use_skip_connection:
                h = h.with_feats(torch.cat((h.feats, skips.pop().feats), 1))
            h = block(h, time, up=structures.pop() if i % self.depth == 0 else None)
        return h

    @property
    def torso_dtype(self) -> torch.dtype:
        """Dtype in which the blocks compute."""
        return next(m.weight.dtype for m in self.input_blocks.modules() if isinstance(m, nn.Linear))
