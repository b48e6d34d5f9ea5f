"""Initial weights of flow transformers."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from voxgen.attention import TimestepEmbedder
from voxgen.core.checks import require_choice

__all__ = ["Initialization", "initialize_flow"]

Initialization = Literal["vanilla", "scaled"]
"""Of Linear layers: "vanilla" is Xavier-uniform (TRELLIS, Direct3D-S2); "scaled" is normal with a standard deviation from the
width, and for the layers that write into the residual stream from width and depth (TRELLIS.2)."""


def initialize_flow(network: nn.Module, initialization: Initialization, channels: int, depth: int) -> None:
    """Set the weights of a flow transformer of `DiTBlock`s as its paper does.

    Biases and what ends a branch (modulations and out_layer) start at zero, so the velocity starts at zero; the time embedding
    is normal with standard deviation 0.02.

    Args:
        network: with `t_embedder`, `input_layer`, `out_layer`, and blocks anywhere.
        initialization: see `Initialization`.
        channels, depth: width and number of blocks, for "scaled".
    Raises:
        RangeError: an unknown initialization.
    Source: TRELLIS ("vanilla"), TRELLIS.2 ("scaled").
    """
    require_choice("initialize_flow", "initialization", initialization, ("vanilla", "scaled"))
    for part in network.modules():
        if isinstance(part, nn.Linear):
            if initialization == "vanilla":
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.normal_(part.weight, std=math.sqrt(2 / (5 * channels)))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    if initialization == "scaled":
        last = 1 / math.sqrt(5 * max(depth, 1) * channels)
        for name, part in network.named_modules():
            if isinstance(part, nn.Linear) and name.endswith(("to_out", "mlp.mlp.2")):
                nn.init.normal_(part.weight, std=last)
            elif isinstance(part, nn.Linear) and name == "input_layer":
                nn.init.normal_(part.weight, std=1 / math.sqrt(part.in_features))
    for name, part in network.named_modules():
        if isinstance(part, TimestepEmbedder):
            part.reset_parameters()
        elif isinstance(part, nn.Linear) and (name.endswith("adaLN_modulation.1") or name == "out_layer"):
            nn.init.zeros_(part.weight)
