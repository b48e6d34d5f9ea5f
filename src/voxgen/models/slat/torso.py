"""The transformer that encoder and decoders of structured latents share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from voxgen.attention import WindowTransformer
from voxgen.core import SparseTensor
from voxgen.core.checks import require_same_device
from voxgen.core.errors import RangeError
from voxgen.layers import set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models.sc_vae._blocks import initialize
from voxgen.models.sc_vae.config import TORSO_DTYPES

from .config import SLatConfig

__all__ = ["SLatTorso"]


class SLatTorso(nn.Module):
    """A linear layer, the position code of integer cells, transformer blocks in windows. Subclasses add what comes after.

    Args:
        config: see `SLatConfig`.
    Parameters: input_layer (in → C), blocks.{i}.attn.{to_qkv,to_out}, blocks.{i}.mlp.mlp.{0,2}. Linear layers start Xavier-uniform
        with zero biases.
    """

    def __init__(self, config: SLatConfig) -> None:
        super().__init__()
        c = config
        self.config = config
        self.input_layer = nn.Linear(c.in_channels, c.model_channels)
        self.blocks = WindowTransformer(
            c.model_channels, c.num_blocks, c.num_heads, c.window, mlp_ratio=c.mlp_ratio, checkpoint=c.use_checkpoint
        )

    def finish(self, last: nn.Linear, *torso: nn.Module) -> None:
        """Set initial weights and precision, once all layers are there: `last` starts at zero, `torso` computes as the blocks do."""
        initialize(self)
        nn.init.zeros_(last.weight)
        for part in (self.blocks, *torso):
            set_torso_dtype(part, TORSO_DTYPES[self.config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SLatTorso:
        """The inverse of `description`, with fresh weights."""
        return cls(SLatConfig(**values))

    def run_torso(self, x: SparseTensor) -> SparseTensor:
        """Features of the cells of x after the blocks, (n, C) in the dtype of the torso."""
        where = type(self).__name__
        require_width(where, x, self.config.in_channels)
        require_same_device(where, x=x.feats, weights=self.input_layer.weight)
        if max(x.grid.resolution) > self.config.resolution:
            raise RangeError(f"{where}: the grid must have at most {self.config.resolution} cells an axis; got {x.grid.resolution}.")
        return self.blocks(x.with_feats(self.input_layer(x.feats.to(self.input_layer.weight.dtype))))

    @property
    def torso_dtype(self) -> torch.dtype:
        """Dtype in which the blocks compute."""
        return next((m.weight.dtype for m in self.blocks.modules() if isinstance(m, nn.Linear)), self.input_layer.weight.dtype)
