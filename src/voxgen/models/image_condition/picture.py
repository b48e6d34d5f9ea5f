"""Pictures of any kind as bytes: red, green, blue, and alpha where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, RangeError, ShapeError

__all__ = ["Picture", "Pixels", "read_picture"]

Picture: TypeAlias = Any
"""A PIL image of any mode; an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); or a tensor (1, h, w), (3, h, w), (4, h, w), or with the
channels last. Arrays and tensors are uint8, uint16 (0 to 65535) or floats in [0, 1]; colours are sRGB, alpha is straight. EXIF
orientation is not applied: call PIL.ImageOps.exif_transpose first where a camera turned the picture."""

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_READABLE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", *_WITH_ALPHA)


class Pixels(NamedTuple):
    """A picture in bytes.

    Attributes:
        colour: (h, w, 3), not premultiplied.
        alpha: (h, w), or None where the picture has none.
    """

    colour: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None


def read_picture(where: str, image: Picture) -> Pixels:
    """See `Picture`. Values of 16 bits and floats are rounded to 8 bits.

    Raises:
        DtypeError: no picture, or a mode or dtype whose scale is unknown.   ShapeError: axes that are none of a picture, or no pixels.
        RangeError: floats that are not finite or not in [0, 1].
    """
    if isinstance(image, np.ndarray):
        return _of_array(where, image)
    if isinstance(image, Tensor):
        return _of_array(where, _channels_last(where, image))
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return _of_pil(where, image)
    hint = " Open the file with PIL.Image.open." if isinstance(image, str) or hasattr(image, "__fspath__") else ""
    raise DtypeError(f"{where}: image must be a PIL image, an array or a tensor; got {describe(image)}.{hint}")


def _of_pil(where: str, image: Any) -> Pixels:
    if 0 in image.size:
        raise ShapeError(f"{where}: image must have at least one pixel; got {image.size[0]} × {image.size[1]}.")
    if image.mode in _SIXTEEN_BITS:
        return _of_array(where, np.asarray(image).astype(np.uint16))
    if image.mode not in _READABLE:
        raise DtypeError(
            f"{where}: image has the mode {image.mode!r}, whose values have no known scale; it must have one of {', '.join(_READABLE)} or "
            f"16 bits (I;16). Convert it to RGB or RGBA first."
        )
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        return Pixels(rgba[..., :3], rgba[..., 3])
    return Pixels(np.array(image.convert("RGB")), None)


def _channels_last(where: str, image: Tensor) -> np.ndarray:
    if image.ndim == 3:
        first, last = image.shape[0] in (1, 3, 4), image.shape[2] in (1, 3, 4)
        if first and last:
            raise ShapeError(
                f"{where}: image {tuple(image.shape)} may have its channels first or last. Give an array, whose channels are last: "
                f"image.numpy(), or image.permute(1, 2, 0).numpy()."
            )
        if first:
            image = image.permute(1, 2, 0)
    image = image.detach().cpu()
    return (image.float() if image.is_floating_point() else image).numpy()


def _of_array(where: str, image: np.ndarray) -> Pixels:
    values = image[..., None] if image.ndim == 2 else image
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.size == 0:
        raise ShapeError(
            f"{where}: image must be one picture (h, w), (h, w, 3) or (h, w, 4) with at least one pixel, or a tensor (3, h, w) or "
            f"(4, h, w); got {describe(image)}."
        )
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise RangeError(f"{where}: image of floats must be finite and in [0, 1]; got values from {low:.4g} to {high:.4g}.")
        values = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    elif values.dtype == np.uint16:
        values = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise DtypeError(f"{where}: image must be uint8, uint16 or floats in [0, 1]; got {describe(image)}. Convert it first.")
    colour = np.repeat(values, 3, 2) if values.shape[2] == 1 else values[..., :3]
    return Pixels(np.ascontiguousarray(colour), np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None)
