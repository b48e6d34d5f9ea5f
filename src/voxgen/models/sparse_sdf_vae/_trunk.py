"""The transformer at the level of the latent, which encoder and decoder share in kind."""

from __future__ import annotations

from voxgen.attention import WindowTransformer

from .config import LatentLevel


def window_blocks(config: LatentLevel) -> WindowTransformer:
    """The blocks of a configuration, with the position code before them."""
    c = config
    return WindowTransformer(c.model_channels, c.num_blocks, c.num_heads, c.window, mlp_ratio=c.mlp_ratio, checkpoint=c.use_checkpoint)
