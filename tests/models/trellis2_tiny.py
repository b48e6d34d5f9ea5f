"""A pipeline of TRELLIS.2 with networks of a few thousand weights: 16³ and 32³ cells, latents on 4³ and 8³."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from voxgen.flow import ClassifierFreeGuidance, EulerSampler
from voxgen.models import LatentNormalization, PatchedLatentFlow, build
from voxgen.models.image_condition import SmallImageEncoder
from voxgen.models.pipelines import Trellis2Pipeline
from voxgen.models.sc_vae import DecoderConfig, EncoderConfig, SCDecoder, SCEncoder
from voxgen.models.structure import StructureDecoder, StructureFlow

WIDTH = 12
"""Of a condition token."""
GUIDED = ClassifierFreeGuidance(3.0, (0.5, 1.0), 0.5)


def flow(side: int, in_channels: int = 4) -> Any:
    torch.manual_seed(side)
    found: Any = build(
        "voxgen/latent-flow-small",
        resolution=side,
        in_channels=in_channels,
        out_channels=4,
        model_channels=16,
        cond_channels=WIDTH,
        num_blocks=1,
        num_heads=2,
    )
    return _varied(found)


def patched_flow(side: int, in_channels: int = 4) -> Any:
    """As `flow`, with convolutions around a transformer on a grid half as fine."""
    torch.manual_seed(side)
    return _varied(PatchedLatentFlow(side, in_channels, 16, WIDTH, 4, num_blocks=1, num_heads=2, io_block_channels=(8,)))


def _varied(module: nn.Module) -> Any:
    """Weights that all count: published initialisations have zeros at the ends."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.15)
    return module.eval()


def tiny(**fields: Any) -> Trellis2Pipeline:
    torch.manual_seed(0)
    structure = _varied(StructureFlow(4, 4, 16, WIDTH, 4, num_blocks=1, num_heads=2, pe_mode="rope"))
    occupancy = _varied(StructureDecoder(1, 4, channels=(8, 8), num_res_blocks=1, num_res_blocks_middle=1))
    levels = {"num_blocks": (1, 1, 0), "latent_channels": 4}
    shape = SCDecoder(DecoderConfig(model_channels=(32, 16, 16), voxel_margin=0.5, out_channels=7, **levels))
    colour = SCDecoder(DecoderConfig(model_channels=(32, 16, 16), pred_subdiv=False, out_channels=6, **levels))
    encoder = SCEncoder(EncoderConfig(model_channels=(16, 16, 32), num_blocks=(0, 1, 1), latent_channels=4, in_channels=6))
    norm = LatentNormalization((0.1, 0.2, -0.3, 0.0), (1.5, 2.0, 0.5, 1.0))
    options: dict[str, Any] = {
        "structure_flow": structure,
        "structure_decoder": occupancy,
        "shape_flows": {16: flow(4), 32: flow(8)},
        "shape_decoder": shape.eval(),
        "material_flows": {16: flow(4, 8), 32: flow(8, 8)},
        "material_decoder": colour.eval(),
        "shape_normalization": norm,
        "material_normalization": LatentNormalization((0.0,) * 4, (2.0,) * 4),
        "samplers": {stage: EulerSampler(2, 3.0, guidance=GUIDED) for stage in ("structure", "shape", "material")},
        "shape_encoder": encoder.eval(),
        "image_encoder": SmallImageEncoder(32, WIDTH, 16, halvings=2, num_blocks=1, num_heads=2).eval(),
    }
    return Trellis2Pipeline(**{**options, **fields})


def picture(shift: int = 0) -> np.ndarray:
    """An RGBA picture of a disc."""
    y, x = np.mgrid[:48, :64]
    image = np.zeros((48, 64, 4), dtype=np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200 - 3 * shift, 3 * y, 3 * x
    image[..., 3] = 255 * ((x - 30 - shift) ** 2 + (y - 20) ** 2 < 144)
    return image
