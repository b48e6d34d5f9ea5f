"""The JSON header of .vxz files: written as the original writes it, read with a check of every number against the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from voxgen.core.checks import describe
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import FileFormatError

from ._compression import LEVELS
from ._files import parse_json
from ._filters import FILTERS
from ._streams import INTERLEAVES, stream_widths

RESERVED_NAMES = ("svo", "ptr", "idx")
"""Keys that the format uses itself inside a chunk, so no attribute can have them."""
MAX_CHUNK_SIZE = 1024
MAX_CHANNELS = 1 << 16
"""Of all attributes together. The format knows no limit; without one an empty file could name 10¹² streams."""
BYTES_PER_CELL = 12
"""What the format counts for the coordinates of a voxel in `raw_size`."""
METADATA_KEY = "voxgen"


class Stream(NamedTuple):
    """A piece of the binary part: start counted from its first byte."""

    name: str
    start: int
    length: int

    def of(self, binary: memoryview) -> memoryview:
        """The stream's bytes."""
        return binary[self.start : self.start + self.length]


class Chunk(NamedTuple):
    """idx: which block of chunk_size³ cells.   octree, streams: where its data lie."""

    idx: tuple[int, int, int]
    octree: Stream
    streams: tuple[Stream, ...]


class Header(NamedTuple):
    """A header whose numbers fit each other."""

    num_voxel: int
    chunk_size: int
    filter: str
    compression: str
    level: int
    interleave: str
    attributes: dict[str, int]
    chunks: tuple[Chunk, ...]
    json: dict[str, Any]


def build_header(
    *,
    num_voxel: int,
    chunk_size: int,
    filter: str,
    compression: str,
    level: int,
    interleave: str,
    attributes: Mapping[str, int],
    idx: Sequence[tuple[int, int, int]],
    lengths: Sequence[int],
) -> dict[str, Any]:
    """The header's JSON object, keys in the original's order.

    Args:
        attributes: channels by name.
        idx: of each chunk.
        lengths: of all streams, chunk by chunk, each chunk's octree first.
    """
    names = ("svo", *stream_widths(attributes, interleave))
    chunks, start = [], 0
    for k, index in enumerate(idx):
        entry = {"idx": list(index)}
        inside = 0
        for name, length in zip(names, lengths[k * len(names) : (k + 1) * len(names)], strict=True):
            entry[name] = [inside, length]
            inside += length
        entry["ptr"] = [start, inside]
        chunks.append(entry)
        start += inside
    raw_size = num_voxel * (BYTES_PER_CELL + sum(attributes.values()))
    return {
        "num_voxel": num_voxel,
        "chunk_size": chunk_size,
        "filter": filter,
        "compression": compression,
        "compression_level": level,
        "raw_size": raw_size,
        "compressed_size": start,
        "compress_ratio": raw_size / start if start else 1.0,
        "attr_interleave": interleave,
        "attr": [[name, channels] for name, channels in attributes.items()],
        "chunks": chunks,
    }


def parse_header(where: str, text: bytes, binary_size: int) -> Header:
    """Read the JSON and check it.

    Args:
        where: call and file, first words of messages.
        text: the JSON part of the file.
        binary_size: bytes that follow it.
    Raises:
        FileFormatError: not ASCII JSON, a key missing or given twice, a value of another type, numbers that contradict each
            other or the size of the file.
    """
    table = parse_json(f"{where}: the header", text)

    def bad(key: str, expected: str) -> NoReturn:
        raise FileFormatError(f"{where}: header: {key} must be {expected}; got {describe(table[key])}.")

    for key in ("num_voxel", "chunk_size", "compression_level", "raw_size", "compressed_size", "filter", "compression"):
        if key not in table:
            raise FileFormatError(f"{where}: header: {key!r} is missing.")
    for key in ("compress_ratio", "attr_interleave", "attr", "chunks"):
        if key not in table:
            raise FileFormatError(f"{where}: header: {key!r} is missing.")
    for key in ("num_voxel", "raw_size", "compressed_size"):
        if not _is_count(table[key]):
            bad(key, "a whole number >= 0")
    size = table["chunk_size"]
    if not _is_count(size) or not 2 <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        bad("chunk_size", f"a power of two from 2 to {MAX_CHUNK_SIZE}")
    for key, words in (("filter", FILTERS), ("compression", tuple(LEVELS)), ("attr_interleave", INTERLEAVES)):
        if not isinstance(table[key], str) or table[key] not in words:
            bad(key, f"one of {', '.join(map(repr, words))}")
    levels = LEVELS[table["compression"]]
    if not _is_count(table["compression_level"]) or not levels.lowest <= table["compression_level"] <= levels.highest:
        bad("compression_level", f"from {levels.lowest} to {levels.highest} for {table['compression']}")

    attributes = _parse_attributes(where, table["attr"])
    raw_size = table["num_voxel"] * (BYTES_PER_CELL + sum(attributes.values()))
    if table["raw_size"] != raw_size:
        bad("raw_size", f"{raw_size} for {table['num_voxel']} voxels of {sum(attributes.values())} attribute bytes")
    if table["compressed_size"] != binary_size:
        raise FileFormatError(
            f"{where}: the header announces {table['compressed_size']} bytes of data, the file holds {binary_size}; "
            "it is truncated, or something was appended."
        )
    ratio = table["compress_ratio"]
    expected = raw_size / binary_size if binary_size else 1.0
    if type(ratio) is not float or not math.isclose(ratio, expected, rel_tol=1e-9):
        bad("compress_ratio", f"raw_size / compressed_size = {expected}")
    if not isinstance(table.get(METADATA_KEY, {}), dict):
        bad(METADATA_KEY, "an object")
    chunks = _parse_chunks(where, table, attributes, binary_size)
    return Header(
        table["num_voxel"],
        size,
        table["filter"],
        table["compression"],
        table["compression_level"],
        table["attr_interleave"],
        attributes,
        chunks,
        table,
    )


def _parse_attributes(where: str, entries: Any) -> dict[str, int]:
    wanted = "a list of [name, channels] with different names and channels >= 1"
    if not isinstance(entries, list) or not entries:
        raise FileFormatError(f"{where}: header: attr must be {wanted}; got {describe(entries)}.")
    attributes: dict[str, int] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str) or not _is_count(entry[1]) or not entry[1]:
            raise FileFormatError(f"{where}: header: attr must be {wanted}; one entry is {describe(entry)}.")
        name, channels = entry
        if name in attributes or not name or name in RESERVED_NAMES:
            raise FileFormatError(f"{where}: header: attr names {name!r}, which is empty, reserved or named before.")
        attributes[name] = channels
    if sum(attributes.values()) > MAX_CHANNELS:
        raise FileFormatError(f"{where}: header: attr has {sum(attributes.values())} channels; at most {MAX_CHANNELS} are possible.")
    return attributes


def _parse_chunks(where: str, table: dict[str, Any], attributes: dict[str, int], binary_size: int) -> tuple[Chunk, ...]:
    """Check that the chunks' streams lie one behind another and fill the binary part, which leaves no room for lies."""
    entries = table["chunks"]
    size, total = table["chunk_size"], table["num_voxel"]
    if not isinstance(entries, list) or len(entries) > total or total > len(entries) * size**3:
        count = len(entries) if isinstance(entries, list) else describe(entries)
        raise FileFormatError(f"{where}: header: chunks cannot hold {total} voxels; got {count} chunks of {size}³ cells.")
    names = ["svo", *stream_widths(attributes, table["attr_interleave"])]
    keys = {"idx", "ptr", *names}
    chunks: list[Chunk] = []
    start = 0
    for number, entry in enumerate(entries):
        what = f"{where}: header: chunk {number}"
        if not isinstance(entry, dict) or entry.keys() != keys:
            raise FileFormatError(f"{what} must have the keys {describe(['idx', *names, 'ptr'])}; got {describe(entry)}.")
        idx = entry["idx"]
        if not isinstance(idx, list) or len(idx) != 3 or not all(_is_count(i) and i < MAX_RESOLUTION // size for i in idx):
            raise FileFormatError(f"{what}: idx must be three whole numbers from 0 to {MAX_RESOLUTION // size - 1}; got {describe(idx)}.")
        inside = 0
        streams = []
        for name in names:
            length = _length(what, name, entry[name], inside)
            streams.append(Stream(name, start + inside, length))
            inside += length
        length = _length(what, "ptr", entry["ptr"], start)
        if length != inside:
            raise FileFormatError(f"{what}: ptr must give the length of the chunk's streams, {inside}; got {length}.")
        chunks.append(Chunk((idx[0], idx[1], idx[2]), streams[0], tuple(streams[1:])))
        start += inside
    if start != binary_size:
        raise FileFormatError(f"{where}: header: the chunks take {start} bytes, but the file holds {binary_size}.")
    if len({c.idx for c in chunks}) != len(chunks):
        raise FileFormatError(f"{where}: header: two chunks have one idx.")
    return tuple(chunks)


def _length(what: str, name: str, entry: Any, start: int) -> int:
    if not isinstance(entry, list) or len(entry) != 2 or not all(map(_is_count, entry)) or entry[0] != start:
        raise FileFormatError(f"{what}: {name} must be [{start}, length], right behind what comes before; got {describe(entry)}.")
    return entry[1]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
