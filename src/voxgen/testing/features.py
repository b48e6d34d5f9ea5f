"""A small network of fixed random features, in place of a trained one where only the plumbing of a perceptual loss is tested."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class RandomFeatures(nn.Module):
    """Distance of pictures (v, 3, h, w) by three levels of random convolutions, (v, 1, 1, 1): 0 for equal ones, positive else.

    Built like LPIPS: features of each level are brought to unit length, and their squared differences averaged over the picture.

    Args:
        seed: the same seed gives the same network.   channels: of the first level; each further one has twice as many.
    """

    def __init__(self, seed: int = 0, channels: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        widths = [3, channels, 2 * channels, 4 * channels]
        for i, (one, other) in enumerate(itertools.pairwise(widths)):
            kernel = torch.randn(other, one, 3, 3, generator=generator) / (9 * one) ** 0.5
            self.register_buffer(f"kernel_{i}", kernel)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        total = image.new_zeros(len(image), 1, 1, 1)
        one, other = image, target
        for i, kernel in enumerate(self.buffers()):
            weight = kernel.to(image)
            one, other = (torch.nn.functional.conv2d(x, weight, stride=1 + (i > 0), padding=1).relu() for x in (one, other))
            units = [x * (x.square().sum(1, keepdim=True) + 1e-6).rsqrt() for x in (one, other)]
            total = total + (units[0] - units[1]).square().sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return total
