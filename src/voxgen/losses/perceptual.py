"""The network of LPIPS, from the package that published it and weights that lie on disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from voxgen.core.checks import require_choice
from voxgen.core.errors import MissingDependency

LPIPSNet = Literal["vgg", "alex", "squeeze"]
_BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


def lpips_network(net: LPIPSNet = "vgg", *, device: torch.device | str = "cpu") -> nn.Module:
    """LPIPS as a frozen network for `perceptual_loss`. Never downloads anything.

    Args:
        net: backbone; the published losses of 3D generation take "vgg", its authors recommend "alex" for evaluation.
        device: where the network shall run: that of the pictures.
    Returns:
        Module that maps two (v, 3, h, w) pictures in [−1, 1] to (v, 1, 1, 1) distances; a `Perceptual`.
    Raises:
        MissingDependency: the package lpips is not installed, or the backbone's weights are not in torch's folder of
        checkpoints; the message says what to install or which file to put where.   RangeError: an unknown backbone.
    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018.
    """
    where = "lpips_network"
    require_choice(where, "net", net, get_args(LPIPSNet))
    for package in ("lpips", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"{where}: the package {package} is not installed. pip install 'voxgen[train]', or leave the perceptual term out."
            )
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _BACKBONES[net]
    if not weights.is_file():
        raise MissingDependency(
            f"{where}: the weights of the {net} backbone are not at {weights}. Download https://download.pytorch.org/models/"
            f"{weights.name} to this place, or leave the perceptual term out."
        )
    import lpips  # pyright: ignore[reportMissingImports] (an optional package)

    return lpips.LPIPS(net=net, verbose=False).eval().requires_grad_(False).to(device)
