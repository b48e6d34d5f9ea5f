"""The autoencoders whose latents flows make: from files, or the smallest ones, with fresh weights, for tests."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxgen.models import build, load_pretrained, save_pretrained

from .encodings import encoding_of
from .flow_source import Wanted
from .views import FEATURES

_BLOCKS = ("num_blocks_encoder", "num_blocks_decoder", "num_heads_encoder", "num_heads_decoder", "num_groups")
_WIDTHS = ("model_channels_encoder", "model_channels_decoder")
_SC = {"model_channels": (8, 16, 32), "num_blocks": (0, 1, 1), "latent_channels": 4}
SMALLEST: Mapping[str, tuple[str, dict[str, Any]]] = {
    "structure": ("voxgen/structure-vae-small", {"model_channels": (8, 8, 8), "num_res_blocks_middle": 0, "embed_dim": 4}),
    "trellis2-shape": ("voxgen/shape-vae-small", _SC),
    "trellis2-material": ("voxgen/material-vae-small", _SC),
    "direct3d-s2": (
        "voxgen/sdf-vae-small",
        {"embed_dim": 4, "early_pruning": True, **dict.fromkeys(_WIDTHS, 32), **dict.fromkeys(_BLOCKS, 1)},
    ),
    "focusing": (
        "voxgen/sparse-flex-vae-small",
        {"point_channels": 16, "hidden_dim": 16, "n_blocks": 2, "model_channels": 32, "num_blocks": 1, "num_heads": 1, "num_groups": 4},
    ),
    "sparse-up": (
        "voxgen/texture-vae-small",
        {
            "resolution": 8,
            "feature_channels": FEATURES,
            "latent_channels": 4,
            "model_channels": 32,
            "num_blocks": 1,
            "num_heads": 2,
            "widths": (16, 12),
        },
    ),
}
"""Of 32³ cells."""
TRAINED_BY = {
    "structure": "train_structure_vae.py",
    "trellis2-shape": "train_sc_vae.py",
    "trellis2-material": "train_material_vae.py",
    "direct3d-s2": "train_ss_vae.py",
    "focusing": "train_focusing.py",
    "sparse-up": "train_texture_vae.py",
}


def autoencoder(path: Path | None, kind: str, arguments: argparse.Namespace, option: str = "--vae") -> tuple[Path, nn.Module]:
    """The file of an autoencoder, and what it holds. Without one --smallest makes it, with fresh weights."""
    if path is not None:
        return path, load_pretrained(path).eval()
    if not arguments.smallest:
        raise SystemExit(f"{option} is needed: the file of the autoencoder, as examples/{TRAINED_BY[kind]} writes it.")
    made: Path = arguments.out / f"{kind}-vae.safetensors"
    if not made.exists():
        name, fields = SMALLEST[kind]
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            vae = build(name, **fields)
            for weight in vae.parameters():
                if weight.ndim > 1 and not bool(weight.any()):  # heads that start at zero make one latent of everything
                    nn.init.normal_(weight, std=0.1)
            save_pretrained(vae, made)
    return made, load_pretrained(made).eval()


def wanted_of(path: Path, vae: nn.Module, field: str | None, arguments: argparse.Namespace, name: str = "latents") -> Wanted:
    """Latents of an autoencoder."""
    return Wanted(name, path, encoding_of(vae, path, arguments.resolution), field)
