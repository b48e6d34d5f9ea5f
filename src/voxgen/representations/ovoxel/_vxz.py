"""Reading and writing of .vxz, the compressed voxel files of TRELLIS.2."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from voxgen.core.aliases import ByteRows, Cells
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import FileFormatError, RangeError

from ._chunks import Chunks, from_leaves, into_chunks
from ._compression import LEVELS, compress, decompress
from ._files import DEFAULT_MAX_BYTES, PathOrFile, copy_metadata, label, read_bytes, write_bytes
from ._filters import FILTERS, Plan, add, neighbor_plan, parent_plan, subtract
from ._octree import decode_octree, encode_octrees
from ._rows import lexicographic, require_rows
from ._streams import INTERLEAVES, from_streams, in_threads, stream_widths, to_streams
from ._vxz_header import MAX_CHANNELS, MAX_CHUNK_SIZE, METADATA_KEY, RESERVED_NAMES, Header, Stream, build_header, parse_header

MAGIC = b"VXZ\x00"


class VxzFile(NamedTuple):
    """What a .vxz file holds.

    coords: (n, 3) int32 [x, y, z], unique, in lexicographic order.
    attributes: (n, c) uint8 by name, in the file's order of names; row i belongs to coords[i].
    header: the file's JSON header; what voxgen added (`write_vxz(metadata=...)`) stands under "voxgen".
    """

    coords: Cells
    attributes: dict[str, ByteRows]
    header: dict[str, Any]


def write_vxz(
    path: PathOrFile,
    coords: Cells,
    attributes: Mapping[str, ByteRows],
    *,
    chunk_size: int = 256,
    filter: str = "none",
    compression: str = "lzma",
    level: int | None = None,
    interleave: str = "as_is",
    metadata: Mapping[str, Any] | None = None,
    threads: int = 1,
    progress: bool = False,
) -> None:
    """Write voxels and their bytes to a .vxz file.

    The file is that of the original writer, byte for byte, where the compressor's library is the same (always with
    compression "none"). A path is written under a temporary name and renamed, so that it holds the old file or the new one.

    Args:
        path: where to, or an open binary file.
        coords: (n, 3) int32 or int64 [x, y, z] in [0, 65536), unique, any order; n = 0 is legal.
        attributes: (n, c) uint8 by name, at least one, not named "svo", "ptr" or "idx".
        chunk_size: side of the cubes that are packed on their own, a power of two from 2 to 1024.
        filter: "none"; "parent" or "neighbor" store differences to an earlier voxel. They serve smooth attributes; on dual
            vertices they make files some 5 % larger.
        compression: "lzma" (smallest), "zstd", "deflate" or "none".
        level: of the compressor; None or 0 takes the highest (lzma 9, zstd 22, deflate 9).
        interleave: "as_is" one stream for each attribute, "none" one for each channel, "all" a single one (the original
            cannot read that).
        metadata: written as the header's last key, "voxgen", together with a checksum of the file; must be JSON, and must not
            have a key "crc32". None leaves the header as the original's.
        threads: pack that many streams at once; the bytes do not depend on it. LZMA at level 9 touches some 100 MB in each.
        progress: show a bar over the streams.
    Raises:
        RangeError: coordinates, names or options out of range.   DuplicateError: a voxel in two rows.
        ShapeError, DtypeError: coords or attributes of another shape or dtype, metadata that is no JSON.   OSError: cannot write.
    Differences from the original: duplicates raise (it writes a file whose rows no longer match); no voxels are legal (it
    divides by zero).
    """
    where = "write_vxz"
    rows = require_rows(where, coords, attributes, (torch.uint8,), reserved=RESERVED_NAMES)
    size = require_int(where, "chunk_size", chunk_size, 2, MAX_CHUNK_SIZE)
    if size & (size - 1):
        raise RangeError(f"{where}: chunk_size must be a power of two; got {size}.")
    require_choice(where, "filter", filter, FILTERS)
    require_choice(where, "interleave", interleave, INTERLEAVES)
    levels = LEVELS[require_choice(where, "compression", compression, tuple(LEVELS))]
    level = levels.default if level is None or level == 0 else require_int(where, "level", level, levels.lowest, levels.highest)
    require_int(where, "threads", threads, 1)
    channels = sum(value.shape[1] for value in rows.attributes.values())
    if channels > MAX_CHANNELS:
        raise RangeError(f"{where}: attributes may have at most {MAX_CHANNELS} channels together; got {channels}.")
    extra = None if metadata is None else copy_metadata(where, metadata)
    if extra and "crc32" in extra:
        raise RangeError(f"{where}: metadata must not have the key 'crc32': the file's checksum takes it.")

    chunks = into_chunks(where, rows.coords, size)
    octrees = encode_octrees(chunks.codes, chunks.offsets, chunks.depth)
    plan = _plan(filter, chunks, octrees.nodes)
    values = {name: value[chunks.rows] for name, value in rows.attributes.items()}
    if plan is not None:
        values = {name: subtract(value, plan) for name, value in values.items()}
    streams = to_streams(values, interleave)
    pieces = []
    for k in range(len(chunks.idx)):
        pieces.append(octrees.nodes[octrees.offsets[k] : octrees.offsets[k + 1]])
        pieces.extend(stream[chunks.offsets[k] : chunks.offsets[k + 1]] for stream in streams.values())
    packed = in_threads(lambda piece: compress(piece.tobytes(), compression, level), pieces, threads, progress, f"write {label(path)}")
    header = build_header(
        num_voxel=len(rows.coords),
        chunk_size=size,
        filter=filter,
        compression=compression,
        level=level,
        interleave=interleave,
        attributes={name: value.shape[1] for name, value in values.items()},
        idx=chunks.idx,
        lengths=[len(data) for data in packed],
    )
    if extra is not None:
        header[METADATA_KEY] = extra
        extra["crc32"] = _checksum(header, packed)
    text = json.dumps(header).encode("ascii")
    start = len(MAGIC) + 4 + len(text)
    if start >= 1 << 32:
        raise RangeError(f"{where}: the header of {len(chunks.idx)} chunks exceeds the format's 4 GiB; enlarge chunk_size.")
    write_bytes(path, [MAGIC, start.to_bytes(4, "big"), text, *packed])


def read_vxz(path: PathOrFile, *, threads: int = 1, progress: bool = False, max_bytes: int = DEFAULT_MAX_BYTES) -> VxzFile:
    """Read a .vxz file, also one with interleave "all", which the original cannot.

    Everything in the file is checked against everything else: a file that was cut off or changed, or lies about its sizes,
    raises. What no check can find is a changed attribute byte, or a changed chunk index, in a file without voxgen's checksum.

    Args:
        path: the file, or an open binary file (read to its end).
        threads: unpack that many streams at once.
        progress: show a bar over the streams.
        max_bytes: the most that the voxels may take decoded, 12 bytes for the coordinates and one for each channel;
            the header's numbers are not believed beyond it.
    Returns:
        VxzFile, rows in lexicographic order of x, y, z (the file has another order), tensors on the CPU.
    Raises:
        FileFormatError: no .vxz file, damaged, or larger than `max_bytes`; names the file and the part.   OSError: cannot read.
    """
    require_int("read_vxz", "threads", threads, 1)
    where = f"read_vxz: {label(path)}"
    header, binary = _open(where, path, max_bytes)
    raw_size = header.json["raw_size"]
    if raw_size > max_bytes:
        raise FileFormatError(
            f"{where}: announces {header.num_voxel} voxels, {raw_size} bytes decoded; max_bytes is {max_bytes}. "
            "Raise max_bytes if you trust the file."
        )
    chunks, nodes = _read_octrees(where, header, binary)
    counts = np.diff(chunks.offsets).tolist()
    widths = stream_widths(header.attributes, header.interleave)

    def unpack(job: tuple[int, Stream]) -> bytes:
        number, stream = job
        what, size = f"{where}: chunk {number}, stream {stream.name!r}", counts[number] * widths[stream.name]
        data = decompress(what, stream.of(binary), header.compression, header.level, size)
        if len(data) != size:
            raise FileFormatError(f"{what}: must hold {size} bytes for the chunk's {counts[number]} voxels; got {len(data)}.")
        return data

    jobs = [(number, stream) for number, chunk in enumerate(header.chunks) for stream in chunk.streams]
    unpacked = in_threads(unpack, jobs, threads, progress, f"read {label(path)}")
    streams = {
        name: np.frombuffer(b"".join(unpacked[i :: len(widths)]), np.uint8).reshape(header.num_voxel, width)
        for i, (name, width) in enumerate(widths.items())
    }
    values = from_streams(streams, header.attributes, header.interleave)
    plan = _plan(header.filter, chunks, nodes)
    if plan is not None:
        values = {name: add(value, plan) for name, value in values.items()}
    order = lexicographic(chunks.coords).rows
    return VxzFile(
        torch.from_numpy(chunks.coords[order]),
        {name: torch.from_numpy(value[order]) for name, value in values.items()},
        header.json,
    )


def read_vxz_header(path: PathOrFile) -> dict[str, Any]:
    """The JSON header of a .vxz file, checked as `read_vxz` does, without unpacking any voxel.

    Raises:
        FileFormatError: no .vxz file, or a damaged header.   OSError: cannot read.
    """
    return _open(f"read_vxz_header: {label(path)}", path, None)[0].json


def _open(where: str, path: PathOrFile, max_bytes: int | None) -> tuple[Header, memoryview]:
    data = read_bytes(where, path, max_bytes)
    if data[:4] != MAGIC:
        raise FileFormatError(f"{where}: no .vxz file: it must start with {MAGIC!r}; it starts with {data[:4]!r}.")
    start = int.from_bytes(data[4:8], "big")
    if not 8 <= start <= len(data):
        raise FileFormatError(f"{where}: truncated: the data must start at byte {start}, but the file has {len(data)} bytes.")
    binary = memoryview(data)[start:]
    header = parse_header(where, data[8:start], len(binary))
    extra = header.json.get(METADATA_KEY, {})
    try:
        intact = "crc32" not in extra or extra["crc32"] == _checksum(header.json, [binary])
    except RecursionError:  # of metadata nested so deep that they can just be read
        intact = False
    if not intact:
        raise FileFormatError(f"{where}: damaged: the checksum is not that of the content.")
    return header, binary


def _checksum(header: Mapping[str, Any], pieces: Sequence[bytes | memoryview]) -> int:
    """CRC-32 of the header without its checksum, then of the data."""
    extra = {key: value for key, value in header[METADATA_KEY].items() if key != "crc32"}
    crc = zlib.crc32(json.dumps({**header, METADATA_KEY: extra}).encode("ascii"))
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _read_octrees(where: str, header: Header, binary: memoryview) -> tuple[Chunks, np.ndarray]:
    """Unpack the octrees of all chunks: their voxels, and their nodes one behind another."""
    depth = header.chunk_size.bit_length() - 1
    full = (8**depth - 1) // 7
    nodes, leaves, left = [], [], header.num_voxel
    for number, chunk in enumerate(header.chunks):
        what = f"{where}: chunk {number}, stream 'svo'"
        data = decompress(what, chunk.octree.of(binary), header.compression, header.level, min(left * depth, full))
        codes = decode_octree(what, data, depth, left)
        nodes.append(data)
        leaves.append(codes)
        left -= len(codes)
    if left:
        raise FileFormatError(f"{where}: the header announces {header.num_voxel} voxels, the octrees hold {header.num_voxel - left}.")
    chunks = from_leaves([chunk.idx for chunk in header.chunks], leaves, header.chunk_size)
    return chunks, np.frombuffer(b"".join(nodes), np.uint8)


def _plan(filter: str, chunks: Chunks, nodes: np.ndarray) -> Plan | None:
    if filter == "parent":
        return parent_plan(chunks.codes, chunks.offsets, nodes, chunks.depth)
    if filter == "neighbor":
        return neighbor_plan(*lexicographic(chunks.coords), chunks.size)
    return None
