"""The transformer at the level of the latent, which the encoders and decoders of sparse autoencoders share in kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from voxgen.attention import WindowTransformer
from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError

TORSO_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}

LOGVAR_RANGE = (-30.0, 20.0)
"""To which encoders clamp the log variance of the latent."""


@dataclass(frozen=True)
class TrunkConfig:
    """What encoder and decoder have in common.

    Args:
        model_channels: width C at the level of the latent.
        latent_channels: width of the latent.
        num_blocks: transformer blocks, which attend inside windows; every second one shifts them by half a window.
        num_heads: heads of the attention; must divide model_channels.
        window: side of a window in cells of the latent.
        mlp_ratio: hidden width of a block's feed-forward half over model_channels.
        torso_dtype: of matrices and convolutions; norms have float32 parameters and statistics.
        use_checkpoint: compute blocks again in the backward pass instead of keeping their results.
    Raises:
        RangeError: numbers that make no network.   DtypeError: not numbers.
    """

    model_channels: int = 512
    latent_channels: int = 16
    num_blocks: int = 4
    num_heads: int = 8
    window: int = 8
    mlp_ratio: float = 4.0
    torso_dtype: str = "float32"
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        where = type(self).__name__
        for name in ("model_channels", "latent_channels", "num_heads", "window"):
            require_int(where, name, getattr(self, name), 1)
        require_int(where, "num_blocks", self.num_blocks, 0)
        if self.model_channels % self.num_heads:
            raise RangeError(f"{where}: num_heads must divide model_channels; got {self.num_heads} and {self.model_channels}.")
        if isinstance(self.mlp_ratio, bool) or not isinstance(self.mlp_ratio, (int, float)):
            raise DtypeError(f"{where}: mlp_ratio must be a number; got {describe(self.mlp_ratio)}.")
        require_choice(where, "torso_dtype", self.torso_dtype, tuple(TORSO_DTYPES))

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `type(self)(**values)` makes an equal configuration."""
        return dataclasses.asdict(self)


def window_blocks(config: TrunkConfig) -> WindowTransformer:
    """The blocks of a configuration, with the position code before them."""
    c = config
    return WindowTransformer(c.model_channels, c.num_blocks, c.num_heads, c.window, mlp_ratio=c.mlp_ratio, checkpoint=c.use_checkpoint)
