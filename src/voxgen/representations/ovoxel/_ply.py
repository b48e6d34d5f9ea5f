"""O-Voxels as point clouds in .ply, in the layout of TRELLIS.2: to look at them in a viewer, or to hand them on.

Binary little-endian, one element `vertex`: x, y, z as floats that hold whole numbers, then each channel of each attribute as
`NAME_0`, `NAME_1`, ... (uchar or float).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from voxgen.core.aliases import Cells, Feats
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import FileFormatError

from ._files import DEFAULT_MAX_BYTES, PathOrFile, copy_metadata, label, parse_json, read_bytes, write_bytes
from ._npz import VoxelFile, voxel_file
from ._rows import lexicographic, require_rows, require_unique

_COMMENT = "comment voxgen "
_WIDTH = {"float": 4, "float32": 4, "uchar": 1, "uint8": 1}
_CHANNEL = re.compile(r"([A-Za-z0-9_.\-]+)_(0|[1-9][0-9]{0,5})")
_MAX_HEADER = 1 << 22


def write_voxel_ply(path: PathOrFile, coords: Cells, attributes: Mapping[str, Feats], *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write voxels as a point cloud, rows in the caller's order.

    Args:
        path: where to (written under a temporary name and renamed), or an open binary file.
        coords: (n, 3) int32 or int64 [x, y, z] in [0, 65536), unique, any order; n = 0 is legal.
        attributes: (n, c) uint8 or float32 by name, at least one; names of letters, digits, "_", "." and "-".
        metadata: JSON, written as a comment line "comment voxgen {...}"; None gives the original's bytes.
    Raises:
        RangeError: coordinates or names out of range.   DuplicateError: a voxel in two rows.
        ShapeError, DtypeError: coords or attributes of another shape or dtype, metadata that is no JSON.   OSError: cannot write.
    """
    where = "write_voxel_ply"
    rows = require_rows(where, coords, attributes, (torch.uint8, torch.float32), plain_names=True)
    require_unique(where, lexicographic(rows.coords))
    lines = ["ply", "format binary_little_endian 1.0"]
    if metadata is not None:
        lines.append(_COMMENT + json.dumps(copy_metadata(where, metadata)))
    lines += [f"element vertex {len(rows.coords)}", *(f"property float {axis}" for axis in "xyz")]
    columns = [rows.coords.astype("<f4")]
    for name, value in rows.attributes.items():
        kind, dtype = ("uchar", "u1") if value.dtype == np.uint8 else ("float", "<f4")
        lines += [f"property {kind} {name}_{i}" for i in range(value.shape[1])]
        columns.append(value.astype(dtype))
    header = "\n".join([*lines, "end_header\n"]).encode("ascii")
    table = np.concatenate([np.ascontiguousarray(c).view(np.uint8).reshape(len(c), c.shape[1] * c.itemsize) for c in columns], 1)
    write_bytes(path, [header, table.tobytes()])


def read_voxel_ply(path: PathOrFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> VoxelFile:
    """Read a point cloud written by `write_voxel_ply` or by the original. For meshes see `voxgen.io.load_mesh`.

    Args:
        path: the file, or an open binary file.
        max_bytes: refuse larger files.
    Returns:
        VoxelFile, rows in lexicographic order, tensors on the CPU; metadata None unless voxgen wrote some.
    Raises:
        FileFormatError: another kind of .ply, damaged, positions that are no cells, or larger than `max_bytes`.   OSError: cannot read.
    """
    where = f"read_voxel_ply: {label(path)}"
    data = read_bytes(where, path, max_bytes)
    count, properties, metadata, start = _parse_header(where, data)
    stride = sum(_WIDTH[kind] for kind, _ in properties)
    if len(data) - start != count * stride:
        raise FileFormatError(
            f"{where}: {count} vertices of {stride} bytes need {count * stride} bytes; {len(data) - start} follow the header."
        )
    table = np.frombuffer(data, np.uint8, offset=start).reshape(count, stride) if count else np.zeros((0, stride), np.uint8)
    groups, begin = _groups(where, properties), 0
    columns: dict[str, np.ndarray] = {}
    for name, (kind, channels) in groups.items():
        end = begin + channels * _WIDTH[kind]
        raw = np.ascontiguousarray(table[:, begin:end])
        columns[name] = raw if _WIDTH[kind] == 1 else raw.view("<f4")
        begin = end
    positions = columns.pop("")
    # written so that NaN fails it
    if not bool(((positions >= 0) & (positions < MAX_RESOLUTION) & (positions == np.floor(positions))).all()):
        raise FileFormatError(f"{where}: x, y, z must be whole numbers in [0, {MAX_RESOLUTION}): is it a point cloud of another kind?")
    return voxel_file(where, positions.astype(np.int32), columns, metadata)


def _parse_header(where: str, data: bytes) -> tuple[int, list[tuple[str, str]], dict[str, Any] | None, int]:
    """Number of vertices, their properties (type, name), metadata, and where the data start."""
    if not data.startswith(b"ply\n"):
        raise FileFormatError(f"{where}: no .ply file: it must start with b'ply\\n'; it starts with {data[:8]!r}.")
    end = data.find(b"\nend_header\n", 0, _MAX_HEADER)
    if end < 0:
        raise FileFormatError(f"{where}: the line 'end_header' is missing.")
    try:
        lines = data[:end].decode("ascii").split("\n")[1:]
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{where}: the header is not ASCII ({error}).") from None
    metadata = None
    rest: list[str] = []
    for line in lines:
        if line.startswith(_COMMENT) and metadata is None:
            metadata = parse_json(f"{where}: the voxgen comment", line.removeprefix(_COMMENT).encode("ascii"))
        elif not line.startswith(("comment ", "obj_info ")) and line not in ("comment", "obj_info"):
            rest.append(line)
    if not rest or rest[0] != "format binary_little_endian 1.0":
        raise FileFormatError(f"{where}: format must be binary_little_endian 1.0; got {rest[0][:60] if rest else 'no format'!r}.")
    found = re.fullmatch(r"element vertex ([0-9]{1,15})", rest[1]) if len(rest) > 1 else None
    if found is None:
        raise FileFormatError(f"{where}: the first element must be 'element vertex COUNT'; got {rest[1][:60] if len(rest) > 1 else ''!r}.")
    properties = []
    for line in rest[2:]:
        words = line.split(" ")
        if len(words) != 3 or words[0] != "property" or words[1] not in _WIDTH:
            raise FileFormatError(
                f"{where}: expected 'property float NAME' or 'property uchar NAME'; got {line[:60]!r}. A mesh? Use load_mesh."
            )
        properties.append((words[1], words[2]))
    return int(found[1]), properties, metadata, end + len("\nend_header\n")


def _groups(where: str, properties: list[tuple[str, str]]) -> dict[str, tuple[str, int]]:
    """Attributes in order, as (type, channels) by name; the position stands first, under ""."""
    if [name for _, name in properties[:3]] != ["x", "y", "z"] or any(_WIDTH[kind] != 4 for kind, _ in properties[:3]):
        raise FileFormatError(f"{where}: the first properties must be float x, y, z; got {properties[:3]}.")
    groups: dict[str, tuple[str, int]] = {"": ("float", 3)}
    last = ""
    for kind, text in properties[3:]:
        found = _CHANNEL.fullmatch(text)
        if found is None:
            raise FileFormatError(f"{where}: properties after x, y, z must be named NAME_0, NAME_1, ...; got {text[:60]!r}.")
        name, channel = found[1], int(found[2])
        known, channels = groups.get(name, (kind, 0))
        if channel != channels or _WIDTH[known] != _WIDTH[kind] or (channel and name != last):
            raise FileFormatError(f"{where}: channels of one attribute must follow each other, of one type, from 0 up; got {text[:60]!r}.")
        groups[name] = (kind, channels + 1)
        last = name
    return groups
