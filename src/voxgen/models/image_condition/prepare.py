"""prepare_image: a picture as the image encoder of a system wants it."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import RangeError

from .background import RemoveBackground, found_alpha
from .crops import FULL, inference_crop, training_crop, white_square
from .picture import Picture, read_picture

__all__ = ["System", "cut_out", "prepare_image"]

System = Literal["trellis2", "trellis", "direct3d-s2"]
"""Whose preparation: TRELLIS.2; TRELLIS, whose conditions Sparse-Up takes; Direct3D-S2."""

_SIZES = {"trellis2": 512, "trellis": FULL, "direct3d-s2": FULL}
_LONGEST = 1024
"""Side to which TRELLIS and TRELLIS.2 limit a picture."""


def cut_out(
    image: Picture,
    system: System = "trellis2",
    *,
    remove_background: RemoveBackground | None = None,
    assume_foreground: bool = False,
) -> UInt8[np.ndarray, "h w 4"]:
    """The object of a picture: its colours, and alpha that tells it from the background.

    Args:
        image: see `Picture`. An alpha that is not opaque everywhere is taken as it is; Direct3D-S2 takes any alpha.
        system: TRELLIS.2 limits pictures to 1024 pixels along their longer side (Lanczos), TRELLIS those without alpha.
        remove_background: finds alpha where there is none: `BackgroundRemover`, `PlainBackground`, or any function of colours.
        assume_foreground: take all of a picture without alpha for the object.
    Returns:
        (h, w, 4) uint8, for `prepare_image(..., assume_foreground=True)`.
    Raises:
        RangeError: no alpha, and neither of the two ways to have it; alpha 0 everywhere; an unknown system.
        DtypeError, ShapeError: no picture, or a remover that returns no alpha (`Picture`).
    Source: the first half of each system's preprocessing; differences: none known.
    Example:
        >>> cut_out(np.zeros((4, 6, 3), dtype=np.uint8), assume_foreground=True).shape
        (4, 6, 4)
    """
    where = "cut_out"
    require_choice(where, "system", system, get_args(System))
    colour, alpha = read_picture(where, image)
    if alpha is not None and system != "direct3d-s2" and bool((alpha == 255).all()):
        alpha = None
    if alpha is not None:
        rgba = np.dstack([colour, alpha])
        if system == "trellis2":
            rgba = _limited(rgba)
    elif assume_foreground or remove_background is not None:
        seen = colour if system == "direct3d-s2" else _limited(colour)
        if assume_foreground or remove_background is None:
            found = np.full(seen.shape[:2], 255, dtype=np.uint8)
        else:
            found = found_alpha(where, seen, remove_background)
        rgba = np.dstack([seen, found])
    else:
        raise RangeError(
            f"{where}: the image has no transparent pixel, so its object is not told from its background. Give an image with alpha, or "
            f"pass remove_background= (BackgroundRemover, PlainBackground or a function), or assume_foreground=True."
        )
    if not rgba[..., 3].any():
        raise RangeError(f"{where}: alpha is 0 everywhere, so there is no object in the image.")
    return rgba


def prepare_image(
    image: Picture,
    system: System = "trellis2",
    *,
    size: int | None = None,
    training: bool = False,
    remove_background: RemoveBackground | None = None,
    assume_foreground: bool = False,
) -> Float[Tensor, "c s s"]:
    """A picture cut out, cropped to its object, on the background and in the size that an image encoder wants.

    Args:
        image: see `Picture`.
        system: "trellis2": square around the object, on black. "trellis": the same, 1.2 times as large. "direct3d-s2": on white with a
            border, and with the mask as fourth channel.
        size: side s in pixels; None takes the system's: 512, 518, 518.
        training: the crop that the flows of TRELLIS and TRELLIS.2 were trained with: around all that is not transparent, alpha
            multiplied in after the resize. Those who train use it; Direct3D-S2's is not known.
        remove_background, assume_foreground: see `cut_out`.
    Returns:
        (3, s, s), or (4, s, s) for "direct3d-s2", float32 in [0, 1]. Encoders take ImageNet's mean and deviation off themselves.
    Raises:
        RangeError: as `cut_out`; an object of less than three pixels; the training crop of Direct3D-S2.   DtypeError, ShapeError: as
        `cut_out`.
    Source: preprocessing of TRELLIS.2 (checked against its own output), of TRELLIS, and of Direct3D-S2 (checked); differences: objects
        that are empty or too small raise.
    Example:
        >>> image = np.zeros((40, 60, 4), dtype=np.uint8)
        >>> image[10:30, 20:30] = 255
        >>> prepare_image(image, size=128).shape
        torch.Size([3, 128, 128])
    """
    where = "prepare_image"
    require_choice(where, "system", system, get_args(System))
    side = _SIZES[system] if size is None else require_int(where, "size", size, 1)
    if training and system == "direct3d-s2":
        raise RangeError(f"{where}: the training crop of direct3d-s2 is not known; leave training=False.")
    rgba = cut_out(image, system, remove_background=remove_background, assume_foreground=assume_foreground)
    if system == "direct3d-s2":
        return white_square(where, rgba, side)
    grow = 1.2 if system == "trellis" else 1.0
    if training:
        pixels = training_crop(where, rgba, side, grow)
    elif system == "trellis":
        pixels = inference_crop(where, rgba, grow, side).astype(np.float32) / 255
    else:
        pixels = _resized(inference_crop(where, rgba), (side, side)).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _limited(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    return pixels if scale == 1 else _resized(pixels, (max(1, int(width * scale)), max(1, int(height * scale))))


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (width, height) by Pillow's Lanczos filter, which weighs colours by alpha where there is one."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
