"""find_sources: folders, lists and files; folders that cannot be read, and lists that are none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prepared import run

from voxgen.core.errors import RangeError
from voxgen.data import find_sources, procedural_sources


def test_sources_of_all_sorts(assets: Path, tmp_path: Path) -> None:
    (assets / "deeper").mkdir()
    (assets / "deeper" / "B.OBJ").write_bytes(b"")
    (assets / "notes.md").write_text("no mesh")
    names = [source.name for source in find_sources(assets)]
    assert names == [f"asset{i}.ply" for i in range(7)] + ["deeper/B.OBJ"]
    (tmp_path / "list.txt").write_text("# chosen\n\nassets/asset3.ply\nassets/missing.glb\nassets/deeper\n")
    assert [s.name for s in find_sources(tmp_path / "list.txt")] == ["assets/asset3.ply", "assets/missing.glb", "B.OBJ"]
    mixed = find_sources([assets / "asset1.ply", *procedural_sources(2, seed=5)])
    assert [s.name for s in mixed] == ["asset1.ply", "procedural-5-0000000", "procedural-5-0000001"]
    manifest = run(tmp_path / "list.txt", tmp_path / "out")
    assert {name: code for name, (code, _) in manifest.rejected.items()} == {"assets/missing.glb": "missing", "B.OBJ": "unreadable"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets" / "locked").mkdir(parents=True)
    (tmp_path / "assets" / "locked" / "b.glb").write_bytes(b"")
    (tmp_path / "assets" / "a.glb").write_bytes(b"")
    return tmp_path / "assets"


@pytest.mark.parametrize("locked", [".", "locked"])
def test_folders_without_rights_are_named(locked: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal is played, because it refuses nothing to root."""
    real, refused = os.scandir, str(folder / locked)

    def scandir(path: Any) -> Any:
        if str(path) == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match=r"cannot be read .*rights") as caught:
        find_sources(folder)
    assert refused in str(caught.value)
    assert caught.value.errno == errno.EACCES
    monkeypatch.undo()
    assert [source.name for source in find_sources(folder)] == ["a.glb", "locked/b.glb"]


@pytest.fixture
def without_rights(folder: Path) -> Iterator[Path]:
    (folder / "locked").chmod(0)
    yield folder
    (folder / "locked").chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is refused to root")
def test_the_system_refuses(without_rights: Path) -> None:
    with pytest.raises(PermissionError, match="locked cannot be read"):
        find_sources(without_rights)


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        (b"# poem\n\nassets/a.glb\nRoses are red.\n", FileNotFoundError, r"list\.txt, line 4: 'Roses are red\.' does not exist"),
        (b"assets\nlist.txt\n", RangeError, r"list\.txt, line 2: 'list\.txt' is neither"),
        (b"assets\n\xff\xfe\n", RangeError, r"list\.txt, line 2: a list .* must be UTF-8"),
        (b"x" * 5000, OSError, r"list\.txt, line 1: 'xxx.*[Nn]ame too long"),
        (b"assets\0\n", FileNotFoundError, r"list\.txt, line 1"),
    ],
    ids=["poem", "list", "bytes", "long", "null"],
)
def test_texts_that_are_no_lists_are_refused_with_the_line(
    lines: bytes, error: type[Exception], words: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_bytes(lines)
    with pytest.raises(error, match=words):
        find_sources(tmp_path / "list.txt")


def test_lists_may_begin_as_editors_of_windows_write_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfassets/a.glb\r\nassets/locked\r\n")
    assert [source.name for source in find_sources(tmp_path / "list.txt")] == ["assets/a.glb", "b.glb"]
