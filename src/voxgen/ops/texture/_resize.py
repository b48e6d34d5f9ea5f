"""Textures of the sizes that TRELLIS.2's converter reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from voxgen.core.errors import DtypeError
from voxgen.core.material import Texture


def resize_to_power_of_two(texture: Texture) -> Texture:
    """Resize a texture's image to a square whose side is the power of two nearest to its longer side.

    What TRELLIS.2 does to the textures of its dataset (those of a glTF file it refuses instead). A tie goes up: 24 gives 32,
    10 gives 8. Lanczos filter of Pillow, each channel by itself.

    Args:
        texture: its image is uint8.
    Returns:
        The texture with another image, or itself if it has such a size already.
    Raises:
        DtypeError: the image is not uint8.
    """
    height, width, channels = texture.image.shape
    lower = 1 << (max(height, width).bit_length() - 1)
    side = lower if max(height, width) - lower < 2 * lower - max(height, width) else 2 * lower
    if (height, width) == (side, side):
        return texture
    if texture.image.dtype != torch.uint8:
        raise DtypeError("resize_to_power_of_two: image must be uint8; got float32. Convert it with (image * 255).round().byte().")
    from PIL import Image

    pixels = texture.image.cpu().numpy()
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, c])).resize((side, side), Image.Resampling.LANCZOS) for c in range(channels)
    ]
    resized = torch.from_numpy(np.stack([np.asarray(p) for p in planes], 2)).to(texture.image.device)
    return dataclasses.replace(texture, image=resized)
