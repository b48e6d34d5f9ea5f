"""What the file formats of O-Voxels share: paths or open files, sizes that are looked at first, metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

from voxgen.core.atomic import atomic_write
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, FileFormatError

PathOrFile: TypeAlias = str | os.PathLike[str] | IO[bytes]
"""A path, or a file that is open in binary mode."""

DEFAULT_MAX_BYTES = 1 << 32
"""What a file may decode to unless the caller allows more: 4 GiB, some 200 million voxels of a geometry file."""


def label(path: PathOrFile) -> str:
    """How messages name the file."""
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) else str(getattr(path, "name", "open file"))


def read_bytes(where: str, path: PathOrFile, max_bytes: int | None) -> bytes:
    """The whole file.

    Raises:
        FileFormatError: a path to a file of more than `max_bytes`.   DtypeError: a file open in text mode.   OSError: cannot read.
    """
    if isinstance(path, (str, os.PathLike)):
        size = Path(path).stat().st_size
        if max_bytes is not None and size > max_bytes:
            raise FileFormatError(f"{where}: has {size} bytes; max_bytes is {max_bytes}. Raise max_bytes if you trust the file.")
        return Path(path).read_bytes()
    data = path.read()
    if not isinstance(data, bytes):
        raise DtypeError(f"{where}: the file must be open in binary mode; reading gave {describe(data)}.")
    return data


def write_bytes(path: PathOrFile, pieces: Iterable[bytes]) -> None:
    """Write to an open file, or to a path under a temporary name that is renamed at the end."""
    if isinstance(path, (str, os.PathLike)):
        with atomic_write(path) as file:
            file.writelines(pieces)
    else:
        path.writelines(pieces)


def copy_metadata(where: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as they will be read back.

    Raises:
        DtypeError: no dict, or something in it that JSON does not know (NaN and infinity included).
    """
    try:
        copy = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise DtypeError(f"{where}: metadata must be JSON: dicts, lists, strings, finite numbers ({error}).") from None
    if not isinstance(copy, dict):
        raise DtypeError(f"{where}: metadata must be a dict; got {describe(metadata)}.")
    return copy


def parse_json(where: str, text: bytes) -> dict[str, Any]:
    """A JSON object in ASCII, strictly: no NaN, no key twice.

    Raises:
        FileFormatError: anything else.
    """

    def no_constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number")

    def no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return table

    try:
        table = json.loads(text.decode("ascii"), parse_constant=no_constant, object_pairs_hook=no_repetition)
    except (ValueError, RecursionError) as error:  # ValueError covers wrong characters, wrong JSON and numbers of 4,300 digits
        raise FileFormatError(f"{where} is not ASCII JSON ({error}).") from None
    if not isinstance(table, dict):
        raise FileFormatError(f"{where} must be a JSON object; got {describe(table)}.")
    return table
