"""Crops of an object as the published systems make them, in bytes: colours with alpha → a square of colours on the background."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from voxgen.core.errors import RangeError

__all__ = ["inference_crop", "training_crop", "white_square"]

OPAQUE = 204
"""Alpha above which TRELLIS and TRELLIS.2 see the object at inference: 0.8 · 255."""
SMALLEST_COVERAGE = 1e-3
BORDER, FULL = 16, 518
"""Of Direct3D-S2: pixels around the picture, and its side."""


def inference_crop(where: str, rgba: UInt8[np.ndarray, "h w 4"], grow: float = 1.0, side: int | None = None) -> UInt8[np.ndarray, "s s 3"]:
    """The square around what is opaque, on black.

    Args:
        grow: side over the extent of the object: 1 in TRELLIS.2, 1.2 in TRELLIS.
        side: resize to it before alpha is multiplied in (TRELLIS), or None (TRELLIS.2, which resizes the result).
    Raises:
        RangeError: less than three pixels of the object along both axes, so that the square is empty.
    Numerics: extents are differences of pixel indices (without + 1), half sides are rounded down, a centre between pixels is rounded to
        even; the product with alpha is made in float32 and truncated to 8 bits.
    """
    from PIL import Image

    left, top, right, bottom = _bounds(where, rgba[..., 3] > OPAQUE, f"more opaque than {OPAQUE} of 255")
    half = int(grow * max(right - left, bottom - top)) // 2
    if half == 0:
        raise RangeError(f"{where}: the object is at most two pixels wide, too small for a crop. Give a larger picture of it.")
    x, y = (left + right) / 2, (top + bottom) / 2
    # Python's round and Pillow's crop both take the even neighbour of a half
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    picture = Image.fromarray(rgba).crop(box)
    if side is not None:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    cut = np.asarray(picture).astype(np.float32) / 255
    return (cut[..., :3] * cut[..., 3:] * 255).astype(np.uint8)


def training_crop(where: str, rgba: UInt8[np.ndarray, "h w 4"], side: int, grow: float = 1.0) -> Float[np.ndarray, "side side 3"]:
    """The square around what is not transparent, resized, on black: floats, as the flows were trained.

    Raises:
        RangeError: an object of one pixel.
    """
    from PIL import Image

    left, top, right, bottom = _bounds(where, rgba[..., 3] > 0, "not transparent")
    x, y, half = (left + right) / 2, (top + bottom) / 2, grow * max(right - left, bottom - top) / 2
    box = (int(x - half), int(y - half), int(x + half), int(y + half))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise RangeError(f"{where}: the object is a single pixel, too small for a crop. Give a larger picture of it.")
    cut = np.asarray(Image.fromarray(rgba).crop(box).resize((side, side), Image.Resampling.LANCZOS)).astype(np.float32) / 255
    return cut[..., :3] * cut[..., 3:]


def white_square(where: str, rgba: UInt8[np.ndarray, "h w 4"], side: int = FULL) -> Float[Tensor, "4 side side"]:
    """Direct3D-S2's: the object on white in the middle of a square with a border, and its mask, from 0 to 1.

    Args:
        side: 518 in the original; the border is the same share of others.
    Raises:
        RangeError: alpha is 0 everywhere.
    """
    seen = rgba[..., 3] > 0
    left, top, right, bottom = _bounds(where, seen, "not transparent")
    if seen.mean() >= SMALLEST_COVERAGE:
        rgba = rgba[top : bottom + 1, left : right + 1]
    alpha = rgba[..., 3:] / 255.0
    # The brackets matter: truncated to 8 bits, (x + 1) - a is one less than x + (1 - a) for many pixels.
    colour = ((rgba[..., :3] / 255.0 * alpha + (1 - alpha)) * 255).astype(np.uint8)
    mask = (alpha[..., 0] * 255).astype(np.uint8)
    longest = max(mask.shape)
    before = [(longest - n) // 2 for n in mask.shape]
    margins = [(b, longest - n - b) for b, n in zip(before, mask.shape, strict=True)]
    colour, mask = _resize(_pad(colour, margins, 255), _pad(mask, margins, 0), side)
    width = BORDER * side // FULL
    border = [(width, width)] * 2
    colour, mask = _resize(_pad(colour, border, 255), _pad(mask, border, 0), side)
    return torch.from_numpy(np.concatenate([colour, mask[..., None]], 2)).permute(2, 0, 1).float() / 255


def _bounds(where: str, seen: np.ndarray, what: str) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that are True, all inside."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        raise RangeError(f"{where}: no pixel of the image is {what}, so there is no object in it. Give another picture, or its alpha.")
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _pad(image: np.ndarray, margins: list[tuple[int, int]], value: int) -> np.ndarray:
    return np.pad(image, margins + [(0, 0)] * (image.ndim - 2), constant_values=value)


def _resize(colour: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    size = (side, side)
    resized = Image.fromarray(colour).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
