"""atomic_write: all or nothing, and errors that say what to do."""

import errno
import os
import stat
from pathlib import Path

import pytest

from voxgen.core.atomic import atomic_write, atomic_write_together


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".tmp"))


def test_writes_bytes_and_text(tmp_path):
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"12")
        file.seek(0)
        file.write(b"3")
    assert (tmp_path / "a.bin").read_bytes() == b"32"
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("é\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()
    assert leftovers(tmp_path) == []


def test_nothing_is_visible_before_the_end(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new" * 100_000)
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 100_000


@pytest.mark.parametrize("error", [ValueError("in the block"), KeyboardInterrupt(), OSError("without a number")])
def test_any_error_keeps_the_old_file_and_passes_through(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write_half():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with (
        pytest.raises(OSError, match=r"cannot write .*a\.bin: No space left on device\. Free some space") as caught,
        atomic_write(path) as file,
    ):
        file.write(b"new")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_real_full_device_gives_errno():
    """The kernel's own refusal: /dev/full is not a regular file, and must not be replaced either."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="not a regular file"), atomic_write("/dev/full"):
        pass
    assert Path("/dev/full").is_char_device()


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*Create the folder first"), atomic_write(tmp_path / "nowhere" / "a.bin"):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_path_is_a_folder_or_runs_through_a_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="add a file name"), atomic_write(tmp_path):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="part of the path is a file"), atomic_write(tmp_path / "file" / "a.bin"):
        pass


def test_write_protected_folder_and_file(tmp_path, monkeypatch):
    real_open, real_access = os.open, os.access

    def refuse(path, *args, **kwargs):
        if str(path).endswith(".tmp"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)  # root may write everywhere, so the refusal is played
    with pytest.raises(PermissionError, match=r"a\.bin.*may write to"), atomic_write(tmp_path / "a.bin"):
        pass
    monkeypatch.undo()
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda p, m, **k: m != os.W_OK and real_access(p, m, **k))
    with pytest.raises(PermissionError, match=r"b\.bin"), atomic_write(path):
        pass
    assert path.read_bytes() == b"old"


def test_overwrite_false(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="overwrite=False"), atomic_write(path, overwrite=False):
        pass
    assert path.read_bytes() == b"old"
    with atomic_write(tmp_path / "b.bin", overwrite=False) as file:
        file.write(b"x")


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_keeps_permissions_and_follows_links(tmp_path):
    umask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "new"):
            pass
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o644
        (tmp_path / "new").chmod(0o600)
        (tmp_path / "link").symlink_to("new")
        with atomic_write(tmp_path / "link") as file:
            file.write(b"through")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "new").read_bytes() == b"through"
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_together_writes_all_or_none(tmp_path, monkeypatch):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"old a")
    atomic_write_together([(a, b"1"), (b, b"2")])
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    real, calls = os.fsync, []

    def fails_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_second)
    with pytest.raises(OSError, match=r"cannot write .*b: No space"):
        atomic_write_together([(a, b"new"), (b, b"new")])
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    with pytest.raises(FileNotFoundError, match="gone"):
        atomic_write_together([(a, b"new"), (tmp_path / "gone" / "b", b"new")])
    assert a.read_bytes() == b"1"
    assert leftovers(tmp_path) == []
