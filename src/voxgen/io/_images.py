"""Images: file bytes ↔ (h, w, c) tensors."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from ._source import Source

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF")
# what Pillow's decoders raise for damaged data
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, OverflowError, ArithmeticError,
    NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_WARNINGS = threading.Lock()
"""Python catches warnings for the whole process, so one load at a time may."""
_WIDE_MODES = {"LA;16B": "RGBA", "RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def decode_images(source: Source, images: Sequence[tuple[str, bytes]], advance: Callable[[], object]) -> list[Tensor]:
    """Decode images, several at a time.

    Args:
        images: name for messages, and file content.
        advance: called once for each.
    Returns:
        (h, w, c) uint8, or float32 in 0..1 for images of more than 8 bits; c is 1 (grey), 2 (grey, alpha), 3 or 4.
    Raises:
        FileFormatError: damaged, or of a kind that is not read.   CapacityError: larger than a file of this size may be.
    """

    with _WARNINGS, warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor() as pool:
        warnings.simplefilter("always")
        opened = [_open(source, name, content) for name, content in images]

        def decode(image: tuple[str, bytes, Image.Image]) -> Tensor:
            pixels = _decode(source, *image)
            advance()
            return pixels

        decoded = list(pool.map(decode, opened))  # Pillow decodes without Python's global lock
    for warning in caught:
        if not issubclass(warning.category, Image.DecompressionBombWarning):  # sizes are accounted for below
            source.warn(f"while an image was read: {warning.message}")
    return decoded


def _open(source: Source, name: str, content: bytes) -> tuple[str, bytes, Image.Image]:
    """Read the header, and account for the pixels before they are allocated."""
    if not content:
        raise source.error(f"image {name} is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except _DAMAGED as error:
        raise source.error(f"image {name} cannot be read ({type(error).__name__}: {error})") from error
    width, height = image.size
    size = width * height * max(len(image.getbands()), 1) * (4 if "16" in image.mode or _raw_mode(image) in _WIDE_MODES else 1)
    source.claim(size, f"image {name} of {width} × {height} pixels")
    return name, content, image


def _decode(source: Source, name: str, content: bytes, image: Image.Image) -> Tensor:
    try:
        with image:
            pixels = _pixels(image, content)
    except _DAMAGED as error:
        raise source.error(f"image {name} cannot be read ({type(error).__name__}: {error})") from error
    if pixels is None:
        raise source.error(f"image {name} has pixels of a kind that is not read; store it as PNG or JPEG")
    return torch.from_numpy(np.array(pixels if pixels.ndim == 3 else pixels[:, :, None]))


def _pixels(image: Image.Image, content: bytes) -> np.ndarray | None:
    raw = _raw_mode(image)
    if raw in _WIDE_MODES:
        return _wide_pixels(image, content, _WIDE_MODES[raw])
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    if image.mode in ("I", "F"):  # no agreed range
        return None
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("L", "RGB") and "transparency" in image.info:  # one colour of it is clear
        image = image.convert(f"{image.mode}A")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _raw_mode(image: Image.Image) -> str:
    """How a PNG stores its pixels, in Pillow's words."""
    raw = image.tile[0][3] if isinstance(image, PngImageFile) and image.tile else ""
    return raw if isinstance(raw, str) else ""


def _wide_pixels(image: Image.Image, content: bytes, other: str) -> np.ndarray:
    """Pixels of a PNG with two bytes a channel and several channels, of which Pillow alone gives the high byte only.

    Told that the file is little-endian, it gives the low byte instead. Grey with alpha has no such twin, but four bytes a
    pixel: read as RGBA they come unchanged.
    """
    with PngImageFile(io.BytesIO(content)) as second:
        kind, box, offset, _ = second.tile[0]
        second.tile = [(kind, box, offset, other)]  # pyright: ignore[reportAttributeAccessIssue]  (a private tuple class)
        low = np.asarray(second).astype(np.uint16)
    if other == "RGBA":
        values = low[:, :, 0::2] * 256 + low[:, :, 1::2]
    else:
        values = np.asarray(image).astype(np.uint16) * 256 + low
    return values.astype(np.float32) / np.float32(65535)


def encode_png(image: Tensor) -> bytes:
    """(h, w, c) uint8 → PNG of 8 bits, float32 in 0..1 → PNG of 16 bits a channel; c from 1 to 4."""
    pixels = image.detach().cpu().numpy()
    if pixels.dtype == np.uint8:
        buffer = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", compress_level=4)
        return buffer.getvalue()
    # Pillow writes 16 bits for grey only
    height, width, channels = pixels.shape
    rows = np.rint(np.clip(pixels, 0, 1) * 65535.0).astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # each row by its difference to the one above ("up")
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 4)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
