"""The file that is being read: its bytes, the files beside it, and what may be said about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from voxgen.core.errors import CapacityError, FileFormatError, MeshError

Note: TypeAlias = Callable[[str], None]
"""Takes a sentence for a warning."""
Begin: TypeAlias = Callable[[int], Callable[[], object]]
"""Takes a number of steps of work, and gives what is to be called after each; for progress bars."""

_FLOOR = 256 << 20
_RATIO = 2500


class Source:
    """One file to read, with its neighbours (material and texture files).

    It keeps a budget: a file may ask for 256 MiB plus 2500 times its own size in arrays. That is more than the densest
    PNG gives (deflate packs up to 1032 bytes in one, and 16 bits become 32), and far less than what a few bytes of JSON can
    ask for ("4 billion zeros").

    Args:
        path: the file.
    Raises:
        OSError: the file is not there or cannot be read.   FileFormatError: it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise IsADirectoryError(f"load_mesh: {path} is a folder; give the path of a mesh file in it.")
        if not path.exists():
            raise FileNotFoundError(f"load_mesh: there is no file {path}; check the spelling, relative paths start at {os.getcwd()}.")
        if not path.is_file():
            raise FileFormatError(f"load_mesh: {path} is not a regular file.")
        self.warnings: list[str] = []
        self._budget = _FLOOR
        self.data = self._read(path)
        if not self.data:
            raise self.error("the file is empty")

    def _read(self, path: Path) -> bytes:
        data = path.read_bytes()
        self._budget += _RATIO * len(data)
        return data

    def error(self, what: str) -> FileFormatError:
        """The error for a damaged file, to be raised by the caller."""
        return FileFormatError(f"load_mesh: {self.path}: {what}.")

    def mesh_error(self, what: str) -> MeshError:
        """The error for a sound file whose mesh cannot be used."""
        return MeshError(f"load_mesh: {self.path}: {what}.")

    def warn(self, what: str) -> None:
        """Note what was left out; load_mesh warns when the mesh is complete. Said once, however often it is noted."""
        if what not in self.warnings:
            self.warnings.append(what)

    def claim(self, size: int, what: str) -> None:
        """Account for `size` bytes that are about to be allocated.

        Raises:
            CapacityError: the file asks for more than a file of its size may.
        """
        self._budget -= size
        if self._budget < 0:
            raise CapacityError(
                f"load_mesh: {self.path}: {what} needs {size:,} bytes, which brings the whole to over {_RATIO} times the size of "
                f"the file; a damaged or hostile file. If it is sound, store its geometry without instances or sparse accessors."
            )

    def find(self, name: str) -> Path | None:
        """The file that `name` means, seen from this one: as it is written, else by its last part in the same folder."""
        folder = self.path.parent
        plain = name.replace("\\", "/")
        if "\0" in plain or "://" in plain or not plain:
            return None
        for candidate in (folder / plain, folder / PurePosixPath(plain).name):
            try:
                if candidate.is_file():  # not a device or a pipe, whatever the file says
                    return candidate
            except (OSError, ValueError):  # a name longer than the system allows, or with characters that no name can have
                return None
        return None

    def read_beside(self, name: str) -> bytes | None:
        """The content of a file named in this one, or None if there is none.

        Raises:
            OSError: it is there, but cannot be read.
        """
        path = self.find(name)
        return None if path is None else self._read(path)
