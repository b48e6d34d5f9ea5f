"""The trunk of the sparse autoencoders: a position code, then transformer blocks with windows that shift."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError
from voxgen.layers._checks import require_width

from .position import absolute_embedding
from .transformer_block import TransformerBlock
from .window_attention import WindowAttention

__all__ = ["WindowTransformer"]


class WindowTransformer(nn.Sequential):
    """x plus the code of its cells, then blocks that attend inside windows; every second one shifts them by half a window.

    A sequence of `TransformerBlock`s, so a network that calls it `blocks` has the published names `blocks.{i}.attn.*`. Linear
    layers before and after, and a norm at the end, are the network's own.

    Args:
        channels: width of a token, at least 6 and a multiple of heads.
        num_blocks: number of blocks; 0 only adds the position code.
        heads: heads of the attention.
        window: side of a window in cells. Blocks 1, 3, ... add window // 2 to the cells before they are divided.
        mlp_ratio: hidden width of a block's feed-forward half over channels.
        checkpoint: compute the blocks again in the backward pass instead of keeping their intermediate results.
        backend: of the attention, see docs/backends.md.
    Parameters: `{i}.attn.{to_qkv,to_out}.*`, `{i}.mlp.mlp.{0,2}.*`. Norms (eps 1e-6) and the position code have none.
    Shape: SparseTensor of n tokens → SparseTensor on the same grid, in the dtype of the blocks.
    Raises:
        RangeError: fewer than 6 channels, heads that do not divide them, a window or ratio below 1, a factor that is not positive.
        ShapeError, DtypeError, DeviceError: x that does not fit.
    Differentiable. Empty samples and tensors are legal.   Batch: a window lies in one sample.
    Source: autoencoders of TRELLIS, TripoSF and Direct3D-S2 (windows 8, shift 4); differences: the windows are the grid's, and so
        fresh for every selection of cells, where the originals carry a cache along that goes stale.
    Numerics: the sum with the position code in float32, or float64 for float64, rounded once to the dtype of the blocks: tokens
        may come in float32 to blocks in half precision. Norms in float32.
    Cost: for each block n times the cells of a window. The windows of a grid are found once and kept on it.
    Example:
        >>> trunk = WindowTransformer(32, num_blocks=2, heads=4, window=8)
        >>> trunk(x).channels                                             # x: SparseTensor of 32 channels
        32
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 12,
        heads: int = 12,
        window: int = 8,
        *,
        mlp_ratio: float = 4.0,
        checkpoint: bool = False,
        backend: str = "auto",
    ) -> None:
        where = "WindowTransformer"
        width = require_int(where, "channels", channels, 6)
        count = require_int(where, "num_blocks", num_blocks, 0)
        super().__init__(
            OrderedDict(
                (
                    str(i),
                    TransformerBlock(
                        width,
                        WindowAttention(width, heads, window, shift=window // 2 * (i % 2), backend=backend),
                        mlp_ratio=mlp_ratio,
                        checkpoint=checkpoint,
                    ),
                )
                for i in range(count)
            )
        )
        self.channels = width

    def forward(self, x: SparseTensor, *, factor: float = 1.0) -> SparseTensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Features of the cells of x after all blocks.

        Args:
            x: (n cells, channels).
            factor: by which cell indices are multiplied in the position code; resolution trained at / resolution of x puts
                shapes of all resolutions on one scale.
        """
        where = "WindowTransformer"
        require_width(where, x, self.channels)
        if not (math.isfinite(factor) and factor > 0):
            raise RangeError(f"{where}: factor must be positive and finite; got {factor}.")
        wide = torch.promote_types(x.dtype, torch.float32)
        code = absolute_embedding(x.grid.cells.to(wide) * factor, self.channels)
        first = next(self.parameters(), x.feats)
        h = x.with_feats((x.feats.to(wide) + code).to(first.dtype))
        for block in self:
            h = block(h)
        return h
