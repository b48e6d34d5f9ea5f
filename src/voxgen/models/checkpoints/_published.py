"""What the tensors of a module are called, and how they lie, in the files of the published systems."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from voxgen.layers import SparseConv3d
from voxgen.ops.conv.layouts import Layout

from ._strict import Link

Rules = Sequence[tuple[re.Pattern[str], str]]
"""Patterns and what takes their place, in order."""


def _renamed(own: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        own = pattern.sub(replacement, own)
    return own


_SC_VAE = (
    (re.compile(r"^(blocks\.\d+\.\d+)\.predict\."), r"\1.to_subdiv."),
    (re.compile(r"^(blocks\.\d+\.\d+)\.upsample\."), r"\1."),
    (re.compile(r"^to_latent\.linear\."), "to_latent."),
)


def sc_vae_name(own: str) -> str:
    """Our name of a tensor of an encoder or decoder of the SC-VAE → TRELLIS.2's."""
    return _renamed(own, _SC_VAE)


_SDF_VAE = (
    (re.compile(r"(downsample\.\d+)\.norm1\."), r"\1.act_layers.0."),
    (re.compile(r"(downsample\.\d+)\.norm2\."), r"\1.out_layers.1."),
    (re.compile(r"(downsample\.\d+)\.conv1\."), r"\1.out_layers.0.conv."),
    (re.compile(r"(downsample\.\d+)\.conv2\."), r"\1.out_layers.3.conv."),
    (re.compile(r"(downsample\.\d+)\.skip_connection\."), r"\1.skip_connection.conv."),
    (re.compile(r"(upsample\.\d+)(?:\.upsample)?\.conv1\."), r"\1.act_layers.0.conv."),
    (re.compile(r"(upsample\.\d+)(?:\.upsample)?\.conv2\."), r"\1.out_layers.0.conv."),
    (re.compile(r"\.conv\.weight$"), ".conv.kernel"),
    (re.compile(r"^encoder\.out_layer\.linear\."), "encoder.out_layer."),
)


def sdf_vae_name(own: str) -> str:
    """Our name of a tensor of the sparse SDF autoencoder → Direct3D-S2's."""
    return _renamed(own, _SDF_VAE)


_SLAT = (
    (re.compile(r"(upsample\.\d+)\.norm1\."), r"\1.act_layers.0."),
    (re.compile(r"(upsample\.\d+)\.conv1\."), r"\1.out_layers.0.conv."),
    (re.compile(r"(upsample\.\d+)\.norm2\."), r"\1.out_layers.1."),
    (re.compile(r"(upsample\.\d+)\.conv2\."), r"\1.out_layers.3.conv."),
    (re.compile(r"(upsample\.\d+)\.skip_connection\."), r"\1.skip_connection.conv."),
    (re.compile(r"^out_layer\.linear\."), "out_layer."),
    (re.compile(r"^out_layer\.offset_perturbation"), "offset_perturbation"),
)


def slat_name(own: str) -> str:
    """Our name of a tensor of an encoder or decoder of structured latents → TRELLIS'."""
    return _renamed(own, _SLAT)


_FLEX_VAE = (
    (re.compile(r"^points\."), "local_pc_encoder."),
    (re.compile(r"^encoder\.out_layer\.linear\."), "encoder.out_layer."),
    (re.compile(r"(upsample\.\d+)\.predict\."), r"\1.pruning_head.mlp."),
    (re.compile(r"(upsample\.\d+)\.upsample\."), r"\1."),
)


def flex_vae_name(own: str) -> str:
    """Our name of a tensor of the SparseFlex autoencoder → TripoSF's, whose upsampling blocks are TRELLIS'."""
    return slat_name(_renamed(own, _FLEX_VAE))


_TIMED_CONVOLUTION = re.compile(r"^((?:input|out)_blocks\.\d+\.conv[12])\.")


def latent_flow_name(own: str) -> str:
    """Our name of a tensor of a flow of structured latents → TRELLIS'."""
    return _TIMED_CONVOLUTION.sub(r"\1.conv.", own)


def links(module: nn.Module, rename: Callable[[str], str], layout: Layout, *, pointwise: str | None = None) -> list[Link]:
    """One link for each tensor of the module: names by a rule, weights of convolutions in the system's layout.

    Args:
        pointwise: name of the linear layers that are convolutions of one cell in the files.
    """
    convolutions = {f"{name}.weight": m.key.kernel_size for name, m in module.named_modules() if isinstance(m, SparseConv3d)}
    linear = {f"{name}.weight" for name, m in module.named_modules() if isinstance(m, nn.Linear) and name.rpartition(".")[2] == pointwise}
    result = []
    for own in module.state_dict():
        if own in convolutions:
            result.append(Link(own, rename(own), layout, convolutions[own]))
        elif own in linear:
            result.append(Link(own, rename(own), layout, linear=True))
        else:
            result.append(Link(own, rename(own)))
    return result
