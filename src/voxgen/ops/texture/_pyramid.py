"""The reduced levels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxgen.core.checks import require_choice, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.material import srgb_to_linear

ZERO = 3
"""Code of the rule that texels outside are 0, beside those of `WRAP_CODES`; for both axes or none."""
STRIP = 1 << 18
"""Texels of the image that are decoded at a time."""


@dataclass(frozen=True, eq=False)
class TexturePyramid:
    """An image and its means over ever larger boxes, down to one texel.

    Level k + 1 has half the texels of level k along each axis (rounded down, at least one). Every level has the mean of
    the image.

    Args:
        levels: (h, w, c) each, row 0 at the top. Level 0 is uint8 or float32 or float64, the others are float.
        decode: (c, 256) float32, what the bytes of a uint8 level 0 mean in each channel; None for a float one.
        cutoff: if given, level 0 holds values and the reduced levels hold the share of texels that reach the cutoff;
            samples then are shares too.
    """

    levels: tuple[Tensor, ...]
    decode: Tensor | None = None
    cutoff: float | None = None

    @property
    def channels(self) -> int:
        return self.levels[0].shape[2]

    def texels(self, level: int, rows: Tensor, columns: Tensor) -> Tensor:
        """(n, c) decoded texels of a level; a uint8 level 0 is never decoded as a whole."""
        image = self.levels[level]
        if image.requires_grad:  # `image[rows, columns]` has a backward pass that adds in no fixed order
            return image.flatten(0, 1).index_select(0, rows * image.shape[1] + columns)
        found = image[rows, columns]
        if self.decode is None or found.dtype != torch.uint8:
            return found
        return self.decode[torch.arange(self.channels, device=found.device), found.long()]


def build_pyramid(
    image: Tensor,
    *,
    srgb: bool | Sequence[bool] = False,
    cutoff: float | None = None,
    compat: Literal["trellis2"] | None = None,
) -> TexturePyramid:
    """Make the reduced levels of an image of any size.

    Each level is the exact mean over equal boxes of the one before; where a side is odd, the boxes share texels in
    proportion to the overlap, so that nothing shifts and the mean is kept. Sides shrink to one independently.

    Args:
        image: (h, w, c) uint8 (0..255), or float32 or float64.
        srgb: the numbers are sRGB-encoded (one answer, or one a channel): decode them, so that means are those of light.
        cutoff: threshold on the (decoded) values; see `TexturePyramid`. For alpha masks.
        compat: "trellis2" keeps the encoding and builds the levels in bytes, floor(sum / 4), as the original does; it takes
            uint8 images with equal sides that are powers of two.
    Returns:
        TexturePyramid on the image's device; a uint8 image is kept as it is for level 0, not copied. Differentiable in a
        float image (not through a cutoff).
    Raises:
        ShapeError, DtypeError: image is not (h, w, c) of these dtypes.   RangeError: no texel; or a size that compat refuses.
    Memory: reduced levels take a third of the texels, 4 bytes a value.
    Source: Williams, Pyramidal Parametrics (1983); the polyphase box filter for odd sides. TRELLIS.2 (compat).
    Example:
        >>> [tuple(level.shape) for level in build_pyramid(torch.rand(5, 2, 1)).levels]
        [(5, 2, 1), (2, 1, 1), (1, 1, 1)]
    """
    where = "build_pyramid"
    require_tensor(where, "image", image, ("h", "w", "c"), (torch.uint8, torch.float32, torch.float64))
    if image.numel() == 0:
        raise RangeError(f"{where}: image must have at least one texel and one channel; got {tuple(image.shape)}.")
    encoded = [srgb] * image.shape[2] if isinstance(srgb, bool) else list(srgb)
    if len(encoded) != image.shape[2]:
        raise ShapeError(f"{where}: srgb must be one answer or one for each of {image.shape[2]} channels; got {len(encoded)}.")
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
    return make_pyramid(where, image, encoded, cutoff, compat)


def make_pyramid(where: str, image: Tensor, encoded: Sequence[bool], cutoff: float | None, compat: str | None) -> TexturePyramid:
    """`build_pyramid` for checked arguments, in the name of another function."""
    if compat is not None:
        return _trellis2(where, image, any(encoded), cutoff)
    decode = None
    if image.dtype == torch.uint8:
        byte = torch.arange(256, dtype=torch.float64, device=image.device) / 255
        decode = torch.stack([srgb_to_linear(byte) if e else byte for e in encoded]).float()
        reduced = _halve_bytes(image, decode, cutoff)
    else:
        image = torch.stack([srgb_to_linear(x) if e else x for x, e in zip(image.unbind(2), encoded, strict=True)], 2)
        reduced = _halve(image if cutoff is None else (image >= cutoff).to(image.dtype))
    levels = [image]
    while levels[-1].shape[:2] != (1, 1):
        levels.append(reduced)
        reduced = _halve(reduced)
    return TexturePyramid(tuple(levels), decode, cutoff)


def reduced_levels(images: Tensor, last: int | None) -> list[Tensor]:
    """(..., h, w, c) images and their reduced levels, down to one texel or level `last`. Differentiable."""
    outer, (height, width, channels) = images.shape[:-3], images.shape[-3:]
    level = images.reshape(-1, height, width, channels).permute(1, 2, 0, 3).reshape(height, width, -1)
    levels = [images]
    while level.shape[:2] != (1, 1) and (last is None or len(levels) <= last):
        level = _halve(level)
        rows, columns = level.shape[:2]
        levels.append(level.view(rows, columns, -1, channels).permute(2, 0, 1, 3).reshape(*outer, rows, columns, channels))
    return levels


def _halve(image: Tensor) -> Tensor:
    """The means over equal boxes, half as many along each axis."""
    return _halve_axis(_halve_axis(image, 0), 1)


def _halve_axis(image: Tensor, axis: int) -> Tensor:
    n = image.shape[axis]
    m = n // 2
    if m == 0:
        return image
    first, second = image.narrow(axis, 0, 2 * m).unflatten(axis, (m, 2)).unbind(axis + 1)
    if n == 2 * m:
        return (first + second) / 2
    third = image.narrow(axis, 1, 2 * m).unflatten(axis, (m, 2)).select(axis + 1, 1)
    # Box j covers [j n / m, (j + 1) n / m): the last m - j parts of texel 2j, all of 2j + 1, the first j + 1 of 2j + 2.
    j = torch.arange(m, dtype=image.dtype, device=image.device).reshape([m if a == axis else 1 for a in range(image.ndim)])
    return ((m - j) * first + m * second + (j + 1) * third) / n


def _halve_bytes(image: Tensor, decode: Tensor, cutoff: float | None) -> Tensor:
    """`_halve` of the decoded image, a strip of rows at a time, so that it never exists as a whole."""
    height, width, channels = image.shape
    table = decode if cutoff is None else (decode >= cutoff).float()
    first = torch.arange(channels, dtype=torch.int32, device=image.device) * 256
    strip = max(2, STRIP // width // 2 * 2)
    if height % 2:
        strip = height  # boxes of an odd side reach into the next strip
    pieces = []
    for rows in image.split(strip):
        index = (rows.int() + first).flatten()
        pieces.append(_halve(table.flatten().index_select(0, index).reshape(rows.shape)))
    return torch.cat(pieces)


def _trellis2(where: str, image: Tensor, srgb: bool, cutoff: float | None) -> TexturePyramid:
    height, width, channels = image.shape
    if srgb or cutoff is not None:
        raise RangeError(f"{where}: compat='trellis2' neither decodes sRGB nor makes masks; leave srgb and cutoff out.")
    if image.dtype != torch.uint8:
        raise DtypeError(
            f"{where}: compat='trellis2' takes uint8 images; got {str(image.dtype).removeprefix('torch.')}. "
            "Convert it with (image * 255).round().byte()."
        )
    if height != width or height & (height - 1):
        raise RangeError(
            f"{where}: compat='trellis2' takes square images with a power of two as side; got {height} × {width}. "
            "Use voxgen.ops.texture.resize_to_power_of_two(texture), or leave compat out."
        )
    levels: list[Tensor] = []
    last = image.int()
    while last.shape[0] > 1:
        last = (last[0::2, 0::2] + last[1::2, 0::2] + last[0::2, 1::2] + last[1::2, 1::2]) // 4
        levels.append(last.float() / 255)
    decode = (torch.arange(256, device=image.device).float() / 255).expand(channels, 256).contiguous()
    return TexturePyramid((image, *levels), decode)
