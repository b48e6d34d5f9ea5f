"""What the tensors of a module are called, and how they lie, in the files of the published systems."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from voxgen.layers import SparseConv3d
from voxgen.ops.conv.layouts import Layout

from ._strict import Link

_SC_VAE = (
    (re.compile(r"^(blocks\.\d+\.\d+)\.predict\."), r"\1.to_subdiv."),
    (re.compile(r"^(blocks\.\d+\.\d+)\.upsample\."), r"\1."),
    (re.compile(r"^to_latent\.linear\."), "to_latent."),
)


def sc_vae_name(own: str) -> str:
    """Our name of a tensor of an encoder or decoder of the SC-VAE → TRELLIS.2's."""
    for pattern, replacement in _SC_VAE:
        own = pattern.sub(replacement, own)
    return own


def links(module: nn.Module, rename: Callable[[str], str], layout: Layout) -> list[Link]:
    """One link for each tensor of the module: names by a rule, weights of convolutions in the system's layout."""
    convolutions = {f"{name}.weight": m.key.kernel_size for name, m in module.named_modules() if isinstance(m, SparseConv3d)}
    result = []
    for own in module.state_dict():
        if own in convolutions:
            result.append(Link(own, rename(own), layout, convolutions[own]))
        else:
            result.append(Link(own, rename(own)))
    return result
