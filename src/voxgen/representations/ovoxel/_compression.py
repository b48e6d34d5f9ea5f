"""The four compressors of .vxz files, each with a limit on what it may unpack to."""

from __future__ import annotations

import lzma
import zlib
from typing import Any, NamedTuple

from voxgen.core.errors import FileFormatError


class Levels(NamedTuple):
    """Levels of a compressor: lowest and highest, and the one that is taken where none is asked for."""

    lowest: int
    highest: int
    default: int


LEVELS = {"lzma": Levels(1, 9, 9), "zstd": Levels(1, 22, 22), "deflate": Levels(1, 9, 9), "none": Levels(0, 0, 0)}

_MAX_WINDOW = 1 << 27
"""The largest window that zstd writes at level 22; a frame that asks for more memory is refused."""


def compress(data: bytes, method: str, level: int) -> bytes:
    """One stream. The same bytes for the same data, method, level and version of the compressor's library."""
    if method == "lzma":
        return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_lzma_filters(level))
    if method == "deflate":
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()
    if method == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=level).compress(data)
    return data


def decompress(where: str, data: memoryview, method: str, level: int, limit: int) -> bytes:
    """Inverse of `compress`; never produces more than `limit` + 1 bytes.

    Args:
        where: what the stream is, first words of the message.
        level: the level it was written with (lzma needs it: it sets the size of the dictionary).
        limit: the most bytes that the stream may hold.
    Raises:
        FileFormatError: the stream is damaged, incomplete, holds more than `limit` bytes, or is followed by others.
    """
    try:
        result = _decompress(where, data, method, level, limit)
    except (lzma.LZMAError, zlib.error) as error:
        raise FileFormatError(f"{where}: the {method} data are damaged ({error}).") from None
    if len(result) > limit:
        raise FileFormatError(f"{where}: must hold at most {limit} bytes, but unpacks to more.")
    return result


def _decompress(where: str, data: memoryview, method: str, level: int, limit: int) -> bytes:
    if method == "none":
        return data[: limit + 1].tobytes()
    if method == "zstd":
        return _unpack_zstd(where, data, limit)
    if method == "lzma":
        unpacker: Any = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_lzma_filters(level))
    else:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    result = unpacker.decompress(data, limit + 1)
    if len(result) <= limit and (not unpacker.eof or unpacker.unused_data):
        ends = "stops before its end" if not unpacker.eof else "is followed by other bytes"
        raise FileFormatError(f"{where}: the {method} data are damaged (the stream {ends}).")
    return result


def _unpack_zstd(where: str, data: memoryview, limit: int) -> bytes:
    import zstandard

    try:
        size = zstandard.frame_content_size(data)
        # The library allocates what the frame declares, so the declaration is checked first.
        if size < 0:
            raise FileFormatError(f"{where}: the zstd frame does not say how many bytes it holds.")
        if size > limit:
            raise FileFormatError(f"{where}: must hold at most {limit} bytes, but the zstd frame declares {size}.")
        return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FileFormatError(f"{where}: the zstd data are damaged ({error}).") from None


def _lzma_filters(level: int) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": level}]
