"""Feature maps of pictures: what the texture encoder reads of each view."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import ShapeError

__all__ = ["ImageEncoder", "PatchEncoder", "encode_images"]


@runtime_checkable
class ImageEncoder(Protocol):
    """What `encode_images` needs: any module with these.

    Attributes:
        channels: width of a feature.   size: side in pixels of the pictures it wants.
    """

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...

    def __call__(self, images: Float[Tensor, "v 3 s s"], /) -> Float[Tensor, "v c h w"]:
        """Colours in [0, 1] on black → a map of features, row and column as in the picture."""
        ...


class PatchEncoder(nn.Module):
    """A fixed random linear map of each patch of a picture: the stand-in for DINOv2 in tests, examples and small trainings.

    Args:
        channels: width of a feature.
        size: side of the pictures, a multiple of patch.
        patch: side of a patch in pixels.
        seed: of the weights, which are equal for equal arguments and are not trained.
    Parameters: linear.{weight (channels, 3, patch, patch), bias}, without gradient.
    Raises:
        RangeError: a number below 1.   ShapeError: a size that is no multiple of patch.
    Example:
        >>> PatchEncoder(16, size=28, patch=14)(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 16, 2, 2])
    """

    def __init__(self, channels: int = 64, size: int = 128, patch: int = 8, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("size", size), ("patch", patch)):
            require_int("PatchEncoder", name, value, 1)
        if size % patch:
            raise ShapeError(f"PatchEncoder: size must be a multiple of patch; got {size} and {patch}.")
        self.channels = channels
        self.size = size
        self.linear = nn.Conv2d(3, channels, patch, stride=patch)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.linear.weight.copy_(torch.randn(self.linear.weight.shape, generator=generator) / math.sqrt(3 * patch * patch))
            if self.linear.bias is not None:
                self.linear.bias.zero_()
        self.requires_grad_(False)

    def forward(self, images: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v c h w"]:
        """Features of each patch."""
        require_tensor("PatchEncoder", "images", images, ("v", 3, self.size, self.size), FLOATS)
        return self.linear((images - 0.5) * 4)


def encode_images(images: Float[Tensor, "v h w 4"], encoder: ImageEncoder, *, chunk: int = 8) -> Float[Tensor, "v c y x"]:
    """Feature maps of rendered views.

    Args:
        images: (v, h, w, 4) floats in [0, 1], red, green, blue, alpha, not premultiplied.
        encoder: see `ImageEncoder`.
        chunk: views at a time.
    Returns:
        (v, c, y, x), for `voxgen.ops.project_features`.
    Raises:
        ShapeError, DtypeError: images that are no such views.   RangeError: a chunk below 1.
    Source: TRELLIS' preparation of data: resized to the encoder's size (Lanczos, 8 bits a channel), then colour times alpha; differences:
        none known.
    """
    where = "encode_images"
    require_tensor(where, "images", images, ("v", "h", "w", 4), FLOATS)
    step = require_int(where, "chunk", chunk, 1)
    if len(images) == 0:
        return images.new_zeros(0, encoder.channels, 1, 1)
    maps = []
    for part in images.split(step):
        resized = torch.stack([_resized(view, encoder.size) for view in part]).to(images.device)
        maps.append(encoder((resized[..., :3] * resized[..., 3:]).permute(0, 3, 1, 2)))
    return torch.cat(maps)


def _resized(view: Tensor, size: int) -> Tensor:
    """(h, w, 4) → (size, size, 4) float32 on the CPU, by Pillow's Lanczos filter on bytes."""
    import numpy as np
    from PIL import Image

    rgba = (view.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    if rgba.shape[:2] != (size, size):
        rgba = np.asarray(Image.fromarray(rgba).resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(rgba.copy()).float() / 255
