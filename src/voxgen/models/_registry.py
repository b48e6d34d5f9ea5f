"""Networks by name: what can be built, and building it in the released configuration."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import torch
from torch import nn

from voxgen.core.errors import RangeError

from ._recipe import Recipe

MODELS: dict[str, str] = {
    "direct3d-s2/dense-vae": "voxgen.models.direct3d_s2._released:dense_vae",
    "direct3d-s2/dense-dit": "voxgen.models.direct3d_s2._released:dense_dit",
    "direct3d-s2/dit-512-v1.0": "voxgen.models.direct3d_s2._released:dit_512_v10",
    "direct3d-s2/dit-512-v1.1": "voxgen.models.direct3d_s2._released:dit_512_v11",
    "direct3d-s2/dit-1024-v1.0": "voxgen.models.direct3d_s2._released:dit_1024_v10",
    "direct3d-s2/dit-1024-v1.1": "voxgen.models.direct3d_s2._released:dit_1024_v11",
    "direct3d-s2/refiner": "voxgen.models.direct3d_s2._released:refiner",
    "direct3d-s2/refiner-1024": "voxgen.models.direct3d_s2._released:sign_refiner",
    "direct3d-s2/vae": "voxgen.models.sparse_sdf_vae._released:vae",
    "trellis/gaussian-decoder": "voxgen.models.slat._released:gaussian_decoder",
    "trellis/latent-flow": "voxgen.models.latent_flow._released:trellis_latent_flow",
    "trellis/mesh-decoder": "voxgen.models.slat._released:mesh_decoder",
    "trellis/slat-encoder": "voxgen.models.slat._released:encoder",
    "trellis/structure-decoder": "voxgen.models.structure._trellis:decoder",
    "trellis/structure-encoder": "voxgen.models.structure._trellis:encoder",
    "trellis/structure-flow": "voxgen.models.structure._trellis:flow",
    "trellis2/shape-encoder": "voxgen.models.sc_vae._released:shape_encoder",
    "trellis2/shape-decoder": "voxgen.models.sc_vae._released:shape_decoder",
    "trellis2/shape-flow-512": "voxgen.models.latent_flow._released:shape_flow_512",
    "trellis2/shape-flow-1024": "voxgen.models.latent_flow._released:shape_flow_1024",
    "trellis2/shape-vae": "voxgen.models.sc_vae._released:shape_vae",
    "trellis2/material-encoder": "voxgen.models.sc_vae._released:material_encoder",
    "trellis2/material-decoder": "voxgen.models.sc_vae._released:material_decoder",
    "trellis2/material-flow-512": "voxgen.models.latent_flow._released:material_flow_512",
    "trellis2/material-flow-1024": "voxgen.models.latent_flow._released:material_flow_1024",
    "trellis2/material-vae": "voxgen.models.sc_vae._released:material_vae",
    "trellis2/structure-decoder": "voxgen.models.structure._trellis:decoder",
    "trellis2/structure-encoder": "voxgen.models.structure._trellis:encoder",
    "trellis2/structure-flow": "voxgen.models.latent_flow._released:structure_flow",
    "voxgen/focusing-flow-small": "voxgen.models.latent_flow._released:small_focusing_flow",
    "voxgen/image-encoder-small": "voxgen.models.image_condition.small:small",
    "voxgen/latent-flow-small": "voxgen.models.latent_flow._released:small",
    "triposf/vae": "voxgen.models.sparse_flex_vae._released:vae",
    "voxgen/sparse-flex-vae-small": "voxgen.models.sparse_flex_vae._released:small_vae",
    "voxgen/shape-vae-small": "voxgen.models.sc_vae._released:small_shape_vae",
    "voxgen/sdf-vae-small": "voxgen.models.sparse_sdf_vae._released:small_vae",
    "voxgen/ss-dit-small": "voxgen.models.direct3d_s2._released:small_dit",
    "voxgen/structure-flow-small": "voxgen.models.structure._small:flow",
    "voxgen/structure-vae-small": "voxgen.models.structure._small:vae",
    "voxgen/texture-flow-small": "voxgen.models.latent_flow._released:small_texture_flow",
    "voxgen/texture-vae-small": "voxgen.models.texture_vae._small:small",
    "voxgen/material-vae-small": "voxgen.models.sc_vae._released:small_material_vae",
}
"""The `Recipe` of each network as "package.module:name", imported when the network is built."""


def available() -> tuple[str, ...]:
    """Names that `build` knows, sorted.

    Example:
        >>> "trellis2/shape-decoder" in voxgen.models.available()
        True
    """
    return tuple(sorted(MODELS))


def build(name: str, device: torch.device | str | None = None, **overrides: Any) -> nn.Module:
    """A network in its released configuration, with fresh weights.

    Args:
        name: one of `available()`.
        device: where the parameters are made; "meta" makes none, for counting, or for loading a file without holding the
            weights twice (`voxgen.models.checkpoints`). None is torch's default device.
        overrides: fields of the released configuration by their published names, such as model_channels, num_blocks,
            latent_channels, use_fp16. Fields that follow from the number of levels, such as block_type, follow it.
    Returns:
        The module, in training mode as torch makes modules; weights by the published initialisation.
    Raises:
        RangeError: an unknown name or override, or a configuration that cannot be built; the message lists what exists.
    Example:
        >>> decoder = build("trellis2/shape-decoder", device="meta")
        >>> sum(p.numel() for p in decoder.parameters())
        474231463
    """
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RangeError(f"build: there is no model {name!r}; there are {', '.join(available())}.{hint}")
    recipe = _recipe(name)
    unknown = sorted(set(overrides) - set(recipe.fields))
    if unknown:
        raise RangeError(f"build: {name} has no field {', '.join(map(repr, unknown))}; it has {', '.join(recipe.fields)}.")
    if device is None:
        return recipe(**overrides)
    with torch.device(device):
        return recipe(**overrides)


def _recipe(name: str) -> Recipe:
    path, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(path), attribute)
