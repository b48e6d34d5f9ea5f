"""O-Voxels as .npz archives: voxgen's own layout, and the original's, which can only be read.

voxgen's layout, version 1: `format` and `version`, `coords` uint16 (n, 3), one array `attributes.NAME` (n, c) uint8, float16
or float32 for each attribute, and `metadata`, JSON text. The original's: `coord` uint16 (n, 3) and one array for each attribute.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from voxgen.core.aliases import Cells, Feats
from voxgen.core.checks import describe
from voxgen.core.errors import DuplicateError, FileFormatError

from ._files import DEFAULT_MAX_BYTES, PathOrFile, copy_metadata, label, parse_json, read_bytes, write_bytes
from ._rows import lexicographic, require_rows, require_unique

FORMAT = "voxgen-ovoxel"
VERSION = 1
_PREFIX = "attributes."
_DTYPES = ("|u1", "<f2", "<f4")
_DESCR = re.compile(r"[<>|][uifbU][0-9]{1,4}")
_MAX_HEADER = 10000


class VoxelFile(NamedTuple):
    """What a .npz or .ply file of voxels holds.

    coords: (n, 3) int32 [x, y, z], unique, in lexicographic order.   attributes: (n, c) uint8, float16 or float32 by name.
    metadata: what `metadata=` was when it was written; None in files of the original.
    """

    coords: Cells
    attributes: dict[str, Feats]
    metadata: dict[str, Any] | None


def write_npz(
    path: PathOrFile,
    coords: Cells,
    attributes: Mapping[str, Feats],
    *,
    metadata: Mapping[str, Any] | None = None,
    kind: str = FORMAT,
) -> None:
    """Write voxels to a compressed .npz archive in voxgen's layout, rows in lexicographic order.

    Args:
        path: where to (written under a temporary name and renamed), or an open binary file.
        coords: (n, 3) int32 or int64 [x, y, z] in [0, 65536), unique, any order; n = 0 is legal.
        attributes: (n, c) uint8, float16 or float32 by name, at least one; names of letters, digits, "_", "." and "-".
        metadata: JSON.
        kind: what the file calls its format; `read_npz` expects the same.
    Raises:
        RangeError: coordinates or names out of range.   DuplicateError: a voxel in two rows.
        ShapeError, DtypeError: coords or attributes of another shape or dtype, metadata that is no JSON.   OSError: cannot write.
    """
    where = "write_npz"
    rows = require_rows(where, coords, attributes, (torch.uint8, torch.float16, torch.float32), plain_names=True)
    text = json.dumps(copy_metadata(where, metadata or {}))
    order = lexicographic(rows.coords)
    require_unique(where, order)
    arrays = {f"{_PREFIX}{name}": value[order.rows] for name, value in rows.attributes.items()}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=np.array(kind),
        version=np.array(VERSION),
        coords=rows.coords[order.rows].astype("<u2"),
        metadata=np.frombuffer(text.encode("ascii"), np.uint8),
        allow_pickle=False,
        **arrays,  # pyright: ignore[reportArgumentType]
    )
    write_bytes(path, [buffer.getvalue()])


def read_npz(path: PathOrFile, *, max_bytes: int = DEFAULT_MAX_BYTES, kind: str = FORMAT) -> VoxelFile:
    """Read a .npz archive of voxels, voxgen's or the original's. Never unpickles.

    Args:
        path: the file, or an open binary file.
        max_bytes: the most that all arrays may take; the archive's own numbers are not believed beyond it.
        kind: the format that the file must say it has. The original's files say none; they are read as O-Voxels only.
    Returns:
        VoxelFile, rows in lexicographic order, tensors on the CPU.
    Raises:
        FileFormatError: no such archive, damaged, a newer version, or larger than `max_bytes`.   OSError: cannot read.
    """
    where = f"read_npz: {label(path)}"
    arrays = _unzip(where, read_bytes(where, path, max_bytes), max_bytes)
    if "format" in arrays:
        return _own(where, arrays, kind)
    if "coord" not in arrays or kind != FORMAT:
        hint = "an array 'coord' (or 'format', in voxgen's layout)" if kind == FORMAT else "an array 'format'"
        raise FileFormatError(f"{where}: must hold {hint}; holds {sorted(arrays)}.")
    return _voxels(where, arrays.pop("coord"), arrays, None)


def _own(where: str, arrays: dict[str, np.ndarray], expected: str) -> VoxelFile:
    missing = sorted({"format", "version", "coords", "metadata"} - arrays.keys())
    if missing:
        raise FileFormatError(f"{where}: arrays are missing: {', '.join(missing)}.")
    kind, version = arrays.pop("format"), arrays.pop("version")
    if kind.shape != () or str(kind) != expected:
        raise FileFormatError(f"{where}: format must be {expected!r}; got {str(kind)[:60]!r}.")
    if version.shape != () or version.dtype.kind not in "iu" or int(version) != VERSION:
        raise FileFormatError(f"{where}: is of version {str(version)[:60]}; this voxgen reads version {VERSION}.")
    coords, text = arrays.pop("coords"), arrays.pop("metadata")
    if text.dtype != np.uint8 or text.ndim != 1:
        raise FileFormatError(f"{where}: metadata must be (k,) uint8; got {text.shape} {text.dtype}.")
    metadata = parse_json(f"{where}: metadata", text.tobytes())
    foreign = [name for name in arrays if not name.startswith(_PREFIX)]
    if foreign:
        raise FileFormatError(f"{where}: holds arrays that the format does not know: {foreign}.")
    return _voxels(where, coords, {name.removeprefix(_PREFIX): value for name, value in arrays.items()}, metadata)


def _voxels(where: str, coords: np.ndarray, attributes: dict[str, np.ndarray], metadata: dict[str, Any] | None) -> VoxelFile:
    if coords.dtype != np.uint16 or coords.ndim != 2 or coords.shape[1] != 3:
        raise FileFormatError(f"{where}: coordinates must be (n, 3) uint16; got {coords.shape} {coords.dtype}.")
    for name, value in attributes.items():
        if value.dtype.str not in _DTYPES or value.ndim != 2 or len(value) != len(coords):
            raise FileFormatError(
                f"{where}: {name!r} must be ({len(coords)}, c) uint8, float16 or float32; got {value.shape} {value.dtype}."
            )
    return voxel_file(where, coords.astype(np.int32), attributes, metadata)


def voxel_file(where: str, coords: np.ndarray, attributes: Mapping[str, np.ndarray], metadata: dict[str, Any] | None) -> VoxelFile:
    """Bring rows as they were read into lexicographic order.

    Raises:
        FileFormatError: a voxel in two rows.
    """
    order = lexicographic(coords)
    try:
        require_unique(where, order)
    except DuplicateError as error:
        raise FileFormatError(str(error)) from None
    values = {name: torch.from_numpy(value[order.rows]) for name, value in attributes.items()}
    return VoxelFile(torch.from_numpy(coords[order.rows]), values, metadata)


def _unzip(where: str, data: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > max_bytes:
                raise FileFormatError(f"{where}: announces {size} bytes; max_bytes is {max_bytes}. Raise max_bytes if you trust the file.")
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if len(set(names)) != len(names):
                raise FileFormatError(f"{where}: two arrays have one name.")
            return {name: _array(where, name, archive, entry) for name, entry in zip(names, entries, strict=True)}
    except FileFormatError:
        raise
    # what zipfile raises for damaged, encrypted (RuntimeError) and unknown (NotImplementedError, a RuntimeError) members
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{where}: the archive is damaged ({error}).") from None


def _array(where: str, name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array. NumPy's own reader would allocate what the array's header says; here it must fit what is there."""
    what = f"{where}: array {name[:60]!r}"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileFormatError(f"{what}: must be stored or deflated; its compression is number {entry.compress_type}.")
    with archive.open(entry) as member:
        content = member.read(entry.file_size + 1)  # with a limit: without one a bomb would first be unpacked whole
    found = re.match(rb"\x93NUMPY(?:\x01\x00(..)|[\x02\x03]\x00(....))", content, re.DOTALL)
    start = found.end() if found else 0
    length = int.from_bytes(found[1] or found[2], "little") if found else 0
    if found is None or length > _MAX_HEADER:
        raise FileFormatError(f"{what}: no .npy array: it starts with {content[:8]!r}.")
    try:
        header = ast.literal_eval(content[start : start + length].decode("ascii").strip())
        descr, fortran, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        raise FileFormatError(f"{what}: its header is damaged ({error}).") from None
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr) or type(fortran) is not bool:
        raise FileFormatError(f"{what}: must hold numbers; holds {describe(descr)}.")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 32 for n in shape) or len(shape) > 2:
        raise FileFormatError(f"{what}: its shape must be at most two whole numbers; got {describe(shape)}.")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise FileFormatError(f"{what}: must hold numbers; holds {descr!r}.") from None
    body = content[start + length :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise FileFormatError(f"{what}: {shape} {dtype} takes {math.prod(shape) * dtype.itemsize} bytes; it has {len(body)}.")
    flat = np.frombuffer(body, dtype) if body else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
