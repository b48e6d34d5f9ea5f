"""The flows of sparse latents as the four systems have them, in a size that a CPU trains."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace

from voxgen.flow import RectifiedFlow

from .flow import FlowRecipe

_SMALL = {"model_channels": 128, "num_blocks": 6, "num_heads": 4}
LATENT: Mapping[str, FlowRecipe] = {
    "trellis2-shape": FlowRecipe("voxgen/latent-flow-small", _SMALL),
    "trellis2-material": FlowRecipe("voxgen/latent-flow-small", _SMALL),
    "direct3d-s2": FlowRecipe("voxgen/ss-dit-small", {}, RectifiedFlow(sigma_min=0.0), "logit-normal"),
    "focusing": FlowRecipe("voxgen/focusing-flow-small", times="logit-normal"),
    "sparse-up": FlowRecipe("voxgen/texture-flow-small", times="logit-normal"),
}
"""Source: TRELLIS.2: shared modulation, rotated positions, uniform times. Direct3D-S2: spatial sparse attention; its times are not
published, these are TRELLIS'. Focusing gives no dimensions and builds on TRELLIS. Sparse-Up: the second stage of TRELLIS."""
TINY = {"model_channels": 32, "num_blocks": 2, "num_heads": 2}


def _attending(attention: str, **fields: object) -> Callable[[FlowRecipe], FlowRecipe]:
    def changed(recipe: FlowRecipe) -> FlowRecipe:
        return replace(recipe, network="voxgen/latent-flow-small", fields={**_SMALL, "attention": attention, **fields})

    return changed


ATTENTION: Mapping[str, Callable[[FlowRecipe], FlowRecipe]] = {
    "full": _attending("full"),
    "window": _attending("window", pe_mode="ape", attention_options={"window": 4}),
    "ssa": _attending(
        "ssa",
        pe_mode="ape",
        qk_rms_norm=False,
        attention_options={"window": 4, "compression_block": 4, "selection_block": 4, "kv_heads": 2, "top_k": 8},
    ),
}
"""One network with the attention of choice, in place of the recipe's own."""


def with_convolutions(recipe: FlowRecipe) -> FlowRecipe:
    """The same flow by a network with residual blocks of convolutions around a transformer on a grid half as fine, as TRELLIS has it."""
    return replace(recipe, network="voxgen/texture-flow-small", fields={})


def convolutions_option(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Let the user choose `with_convolutions`."""
    told = "residual blocks of convolutions around the transformer, on a grid half as fine, as in TRELLIS: dearer steps that learn more"
    parser.add_argument("--convolutions", action="store_true", help=told)
