"""Tiny networks for the pipelines of two stages, with weights that give some cells and some surface."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from voxgen.flow import ClassifierFreeGuidance, EulerSampler, Sampler
from voxgen.models import LatentFlow, PatchedLatentFlow, StructureFlow, build
from voxgen.models.structure import StructureDecoder

SIDE = 8
"""Cells along a side of the latent."""
WIDTH = 4
"""Channels of all latents."""
CONDITION = 12
"""Width of a token."""
SAMPLERS: dict[str, Sampler] = dict.fromkeys(
    ("structure", "latent"), EulerSampler(2, 3.0, guidance=ClassifierFreeGuidance(2.0, (0.5, 1.0)))
)


def filled(module: nn.Module, seed: int, std: float = 0.15) -> Any:
    """Normal weights from a seed; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return module.eval()


def structure_parts(seed: int = 0) -> tuple[StructureFlow, StructureDecoder]:
    """A flow of 4³ latents, and their decoder to 8³ cells."""
    width: dict[str, Any] = {"in_channels": WIDTH, "out_channels": WIDTH, "cond_channels": CONDITION}
    flow = build("trellis/structure-flow", resolution=4, model_channels=24, num_blocks=1, num_heads=2, use_fp16=False, **width)
    decoder = build(
        "trellis/structure-decoder", latent_channels=WIDTH, channels=(16, 8), num_res_blocks=1, num_res_blocks_middle=1, use_fp16=False
    )
    decoder = filled(decoder, seed + 1, 0.25)
    decoder.out_layer[2].bias.data.fill_(-1.0)
    return filled(flow, seed), decoder


def patched_flow(seed: int = 2, side: int = SIDE, stages: int = 1) -> PatchedLatentFlow:
    """A flow of latents with some stages before and after its transformer."""
    flow = PatchedLatentFlow(side, WIDTH, 24, CONDITION, WIDTH, 1, 2, io_block_channels=(8, 12)[:stages])
    return cast(PatchedLatentFlow, filled(flow, seed))


def plain_flow(seed: int = 3, side: int = SIDE) -> LatentFlow:
    """A flow of latents without stages."""
    return cast(LatentFlow, filled(LatentFlow(side, WIDTH, 24, CONDITION, WIDTH, 1, 2), seed))


def tokens(count: int = 1, seed: int = 7) -> Tensor:
    """(count, 5, CONDITION)."""
    return torch.randn(count, 5, CONDITION, generator=torch.Generator().manual_seed(seed))


def chances(*seeds: int) -> list[torch.Generator]:
    """A generator for each object."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Colours(nn.Module):
    """An image encoder whose five tokens are the mean colour of the picture."""

    image_size = 16
    channels = CONDITION

    def tokens(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).repeat(1, CONDITION // 3)[:, None].expand(-1, 5, -1)
