"""SmallImageEncoder: an image encoder small enough to be trained with a flow on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.attention import SelfAttention, TransformerBlock
from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.models._recipe import Recipe

__all__ = ["SmallImageEncoder", "small"]


class SmallImageEncoder(nn.Module):
    """Convolutions that halve the picture until it has few tokens, a position code, and transformer blocks.

    Args:
        image_size: side of the pictures, a multiple of 2^halvings.
        channels: width of a token.
        model_channels: width of the blocks, a multiple of num_heads.
        halvings: how often the picture is halved; (image_size / 2^halvings)² tokens come out.
        num_blocks, num_heads: depth of the transformer, and its heads.
        mlp_ratio: hidden width of the feed-forward halves over model_channels.
    Parameters: `stem.{i}.{weight, bias}`, `position` (tokens, model_channels), `blocks.{i}` as `TransformerBlock`, `out_layer`; 0.19
        million by default.
    Raises:
        RangeError: numbers that make no network.   DtypeError: not numbers.
    Tokens are normed without gain and shift (eps 1e-5), as those of the large encoders, so that a flow meets tokens of one size from its
    first step, and zeros are no picture's. Calling the module gives the tokens: wrap it (DDP) and train it with its flow.
    Source: none of the published systems, which take DINOv2 and DINOv3.
    Example:
        >>> SmallImageEncoder()(torch.rand(2, 3, 128, 128)).shape
        torch.Size([2, 64, 128])
    """

    def __init__(
        self,
        image_size: int = 128,
        channels: int = 128,
        model_channels: int = 64,
        halvings: int = 4,
        num_blocks: int = 3,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        for name, value in (("image_size", image_size), ("channels", channels), ("model_channels", model_channels), ("halvings", halvings)):
            require_int(where, name, value, 1)
        require_int(where, "num_blocks", num_blocks, 0)
        if image_size % 2**halvings:
            raise RangeError(f"{where}: image_size must be a multiple of {2**halvings} for {halvings} halvings; got {image_size}.")
        self._fields = {
            "image_size": image_size,
            "channels": channels,
            "model_channels": model_channels,
            "halvings": halvings,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
        }
        self.image_size = image_size
        self.channels = channels
        self.patch = 2**halvings
        self.special = 0
        # narrow where the picture is large, so that the first convolutions cost as much as the last
        widths = [3, *(max(8, model_channels >> (halvings - 1 - i)) for i in range(halvings - 1)), model_channels]
        self.stem = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.position = nn.Parameter(torch.empty((image_size // self.patch) ** 2, model_channels))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(model_channels, SelfAttention(model_channels, num_heads), mlp_ratio=mlp_ratio, affine=True)
            for _ in range(num_blocks)
        )
        self.out_layer = nn.Linear(model_channels, channels)

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return dict(self._fields)

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SmallImageEncoder:
        """The inverse of `description`, with fresh weights."""
        return cls(**values)

    def tokens(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b m c"]:
        """Tokens row by row. Differentiable; see `forward`."""
        return self(images)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b m c"]:
        """Colours in [0, 1] on black → tokens.

        Raises:
            ShapeError, DtypeError: images of another size, or no floats.
        """
        require_tensor("SmallImageEncoder", "images", images, ("b", 3, self.image_size, self.image_size), FLOATS)
        h = 2 * images.to(self.out_layer.weight.dtype) - 1
        for convolution in self.stem:
            h = F.gelu(convolution(h))
        h = h.flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            h = block(h)
        return F.layer_norm(self.out_layer(h), (self.channels,), eps=1e-5).to(images.dtype)


small = Recipe(
    SmallImageEncoder,
    {
        "image_size": 128,
        "channels": 128,
        "model_channels": 64,
        "halvings": 4,
        "num_blocks": 3,
        "num_heads": 4,
        "mlp_ratio": 4.0,
    },
)
