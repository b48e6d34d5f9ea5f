"""Configuration of a network on structured latents: plain, frozen, checked when it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.models.sc_vae.config import TORSO_DTYPES

__all__ = ["Attention", "SLatConfig"]

Attention = Literal["swin", "full"]
"""Which tokens a block attends to: those of a window that shifts in every second block, or all of the sample."""


@dataclass(frozen=True)
class SLatConfig:
    """What encoder and decoders have in common.

    Args:
        resolution: cells along each axis of the latent's grid.
        in_channels: width of the features of a cell; of a decoder, of the latent.
        out_channels: width of the output: twice the latent's for an encoder (mean, log variance).
        model_channels: width of a token, a multiple of num_heads, at least 6.
        num_blocks, num_heads, mlp_ratio: depth, heads, hidden width of the feed-forward halves over model_channels.
        attn_mode: see `Attention`.
        window_size: side of a window in cells, with "swin".
        torso_dtype: of the linear layers and convolutions between input_layer and out_layer, which are float32.
        use_checkpoint: compute the blocks again in the backward pass instead of keeping their results.
    Raises:
        RangeError: numbers that make no network, an unknown word.   DtypeError: not numbers.
    """

    resolution: int
    in_channels: int
    out_channels: int
    model_channels: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    attn_mode: Attention = "swin"
    window_size: int = 8
    torso_dtype: str = "float32"
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        where = "SLatConfig"
        for name in ("resolution", "in_channels", "out_channels", "num_heads", "window_size"):
            require_int(where, name, getattr(self, name), 1)
        require_int(where, "num_blocks", self.num_blocks, 0)
        require_int(where, "model_channels", self.model_channels, 6)
        if self.model_channels % self.num_heads:
            raise RangeError(f"{where}: num_heads must divide model_channels; got {self.num_heads} and {self.model_channels}.")
        if isinstance(self.mlp_ratio, bool) or not isinstance(self.mlp_ratio, (int, float)):
            raise DtypeError(f"{where}: mlp_ratio must be a number; got {describe(self.mlp_ratio)}.")
        require_choice(where, "attn_mode", self.attn_mode, ("swin", "full"))
        require_choice(where, "torso_dtype", self.torso_dtype, tuple(TORSO_DTYPES))

    @property
    def window(self) -> int:
        """Side of the windows. Twice the resolution holds the whole grid, shifted by half a window too: full attention."""
        return self.window_size if self.attn_mode == "swin" else 2 * self.resolution

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `SLatConfig(**values)` makes an equal configuration."""
        return dataclasses.asdict(self)
