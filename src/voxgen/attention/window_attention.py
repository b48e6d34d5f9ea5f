"""Attention between the tokens of each window."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.layers._checks import require_input
from voxgen.ops.block_attention import window_attention
from voxgen.ops.blocks import partition

from .self_attention import SelfProjections

__all__ = ["WindowAttention"]


class WindowAttention(SelfProjections):
    """Every token attends to the tokens of its window: the cells with one value of (cell + shift) // window.

    Blocks that alternate between shift 0 and window / 2 pass on what they know across the borders of windows.

    Args:
        channels: width of a token, a multiple of heads.
        heads: query heads, each channels / heads wide.
        window: side of a window in cells.
        shift: added to the cells before they are divided. Nothing wraps round: windows at the border hold fewer cells.
        kv_heads, qk_rms_norm, bias: as in `SelfAttention`.
        backend: see docs/backends.md.
    Parameters: as `SelfAttention`.
    Shape: x SparseTensor of n tokens, phases (n, d / 2, 2) of `rope_phases(x.grid.cells, d)` → SparseTensor on the same grid.
    Raises:
        RangeError: heads that do not divide, a window below 1, a negative shift.   ShapeError, DtypeError, DeviceError: x or
        phases that do not fit.
    Differentiable. Empty samples and tensors are legal.   Batch: a window lies in one sample.
    Source: shifted windows of TRELLIS' and Direct3D-S2's autoencoders (window 8, shift 4 in every second block); differences:
        none.
    Cost: n times the cells of a window. The windows of a grid are found once and kept on it.
    Example:
        >>> WindowAttention(32, heads=4, window=8, shift=4)(x).channels   # x: SparseTensor of 32 channels
        32
    """

    def __init__(
        self,
        channels: int = 1024,
        heads: int = 32,
        window: int = 8,
        *,
        shift: int = 0,
        kv_heads: int | None = None,
        qk_rms_norm: bool = False,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, heads, kv_heads=kv_heads, qk_rms_norm=qk_rms_norm, bias=bias)
        self.window = require_int("WindowAttention", "window", window, 1, MAX_RESOLUTION)
        self.shift = require_int("WindowAttention", "shift", shift, 0, MAX_RESOLUTION)
        self.backend = backend

    def forward(self, x: SparseTensor, phases: Float[Tensor, "n d/2 2"] | None = None) -> SparseTensor:
        require_input("WindowAttention", x, self.to_qkv.in_features, self.to_qkv.weight)
        q, k, v = self.project(x.feats, phases)
        windows = partition(x.grid, self.window, self.shift)
        return x.with_feats(self.merge(window_attention(q, k, v, windows, backend=self.backend).out))

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}"
