"""Writing files so that a crash, a full disk or an error in the middle loses nothing.

A file is written under a temporary name in the folder where it will live, forced to disk, and renamed. Until the rename
the old file is as it was; after it the new one is whole; in between there is no moment at which neither exists.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

_REMEDIES = {
    errno.ENOSPC: "Free some space or write to another disk.",
    errno.EDQUOT: "The quota is used up: free some space or write to another disk.",
    errno.EACCES: "Choose a file and folder that you may write to.",
    errno.EPERM: "Choose a file and folder that you may write to.",
    errno.EROFS: "The file system is read-only; write to another folder.",
    errno.ENOENT: "Create the folder first.",
    errno.ENOTDIR: "A part of the path is a file, not a folder; choose another path.",
    errno.EISDIR: "The path is a folder; add a file name.",
    errno.ENAMETOOLONG: "Choose a shorter file name.",
}


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb", *, overwrite: bool = True) -> Iterator[IO[Any]]:
    """Open `path` for writing; the file appears under its name only when the block ends without an error.

    Args:
        path: the file; its folder must exist. A link is followed: the file it points to is replaced.
        mode: "wb" for bytes, "w" for text (UTF-8, line ends as written).
        overwrite: False raises where the file already exists.
    Yields:
        A seekable file object. Do not close it.
    Raises:
        OSError: of the subclass that fits (FileNotFoundError: no such folder; PermissionError; IsADirectoryError;
            FileExistsError; plain OSError for a full disk), with the system's errno and a message that names the path and the
            remedy. An operating system's refusal is not bad input, so it stays an OSError and does not become a VoxgenError.
            Any other error of the block passes through as it is. In all cases the temporary file is removed and the old
            file is untouched.
    Example:
        >>> with atomic_write("out.bin") as file:
        ...     file.write(b"all or nothing")
    """
    pending = _Pending(Path(path), mode, overwrite)
    try:
        with pending.explained():
            yield pending.file
        pending.seal()
        pending.publish()
    finally:
        pending.discard()


def atomic_write_together(files: Sequence[tuple[str | os.PathLike[str], bytes]], *, overwrite: bool = True) -> None:
    """Write several files that belong together: all are on disk under temporary names before the first gets its own.

    They are renamed in the order given, so a file should come after those it refers to. A failure while writing changes
    nothing. Only a power cut between two renames can leave new files beside old ones; each is whole even then.

    Args:
        files: path and content of each.
        overwrite: False raises where one of the files already exists.
    Raises:
        OSError: as `atomic_write`.
    """
    pending: list[_Pending] = []
    try:
        for path, content in files:
            pending.append(_Pending(Path(path), "wb", overwrite))
            with pending[-1].explained():
                pending[-1].file.write(content)
            pending[-1].seal()
        for file in pending:
            file.publish()
    finally:
        for file in pending:
            file.discard()


class _Pending:
    """A file under its temporary name."""

    def __init__(self, path: Path, mode: Literal["wb", "w"], overwrite: bool) -> None:
        self.path = path
        self.target = Path(os.path.realpath(path))
        self.temporary = self.target.with_name(f".voxgen-{secrets.token_hex(8)}.tmp")
        with self.explained():
            self._check_target(overwrite)
            # not tempfile: its files are private to the user, these get the permissions that any new file gets
            descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            self.file: IO[Any] = os.fdopen(descriptor, "wb") if mode == "wb" else os.fdopen(descriptor, "w", encoding="utf-8", newline="")

    def _check_target(self, overwrite: bool) -> None:
        if self.target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not self.target.exists():
            return
        if not overwrite:
            raise FileExistsError(errno.EEXIST, "the file exists and overwrite=False")
        if not self.target.is_file():
            raise OSError(errno.EINVAL, "not a regular file, so it cannot be replaced")
        if not os.access(self.target, os.W_OK):  # a rename would replace a write-protected file without a word
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in errors of the system which file they are about and what to do."""
        try:
            yield
        except OSError as error:
            about_us = error.filename is None or Path(os.fsdecode(error.filename)) in (self.temporary, self.target)
            if error.errno is None or not about_us:
                raise
            remedy = _REMEDIES.get(error.errno, "")
            message = f"cannot write {self.path}: {error.strerror or os.strerror(error.errno)}.{' ' if remedy else ''}{remedy}"
            raise OSError(error.errno, message) from error

    def seal(self) -> None:
        """Force the content to disk, so that the rename cannot come to disk before it."""
        with self.explained():
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            if self.target.exists():
                os.chmod(self.temporary, self.target.stat().st_mode & 0o777)

    def publish(self) -> None:
        with self.explained():
            os.replace(self.temporary, self.target)

    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there."""
        with suppress(OSError):  # closing flushes, which fails again where the disk is full; that error is already on its way
            self.file.close()
        self.temporary.unlink(missing_ok=True)
