"""prepare: no way of stopping it loses or changes anything, by a signal, between any two files, or by a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prepared import CornersStage, digests, run, write_assets

import voxgen.core.atomic as atomic
from voxgen.data import Manifest, PointsStage

SCRIPT = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from prepared import CornersStage, DoubledStage
from voxgen.data import prepare
calls = 0
class Slow(CornersStage):
    def run(self, asset, done):
        global calls
        calls += 1
        if calls == {after}:
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(0.03)
        return super().run(asset, done)
prepare({assets!r}, {out!r}, [Slow(), DoubledStage()], engine="here", assets_per_shard=3)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    """The run kills itself: whatever else the machine does, that comes some assets after the start and many before the end."""
    assets, out = write_assets(tmp_path / "assets", 40), tmp_path / "out"
    for after, delay in ((6, 0.011), (17, 0.027)):
        script = SCRIPT.format(tests=str(Path(__file__).parent), assets=str(assets), out=str(out), after=after, delay=delay)
        process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
    before = Manifest.read(out)
    manifest = run(assets, out)
    assert 0 < manifest.worked <= 40 - before.kept
    run(assets, tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


class Killed(BaseException):
    """In place of a signal, so that a test can stop at each place where files change."""


class Dying:
    """A system call that works so many times."""

    def __init__(self, real: Any, left: int) -> None:
        self.real, self.left = real, left

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return self.real(*arguments)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_stopped_between_any_two_files(
    call: str, assets: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop at the first write, go on and stop at the second, and so on: each run gets one further."""
    out, real, stops = tmp_path / "out", getattr(os, call), 0
    while stops < 200:
        monkeypatch.setattr(atomic.os, call, Dying(real, 4))
        try:
            run(assets, out)
            break
        except Killed:
            stops += 1
        finally:
            monkeypatch.undo()
    assert 5 < stops < 200
    assert digests(out) == whole


def test_parts_that_outlived_their_shard_go(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    """A kill between the writing of an index and the removal of its parts; and temporary files of the killed."""
    out = tmp_path / "out"
    real, kept = Path.unlink, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Path,
            "unlink",
            lambda path, missing_ok=False: kept.update({path: path.read_bytes()}) if path.exists() and "parts" in path.parts else None,
        )
        patch.setattr(Path, "rmdir", lambda path: None)
        run(assets, out)
    assert real is Path.unlink
    assert kept
    (out / "corners" / ".voxgen-0123.tmp").write_bytes(b"half")
    assert run(assets, out).worked == 0
    found = {name: d for name, d in digests(out).items() if "parts" not in name}
    assert found == whole
    assert not list((out / "parts").rglob("*.safetensors"))


@pytest.mark.parametrize("after", [0, 3, 9, 20])
def test_full_disk_stops_clearly_and_loses_nothing(
    after: int, assets: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, out = os.fsync, [], tmp_path / "out"

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left.*finished is kept in .*out; make room") as caught:
        run(assets, out)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    run(assets, out)
    assert digests(out) == whole


def test_the_systems_own_refusal_of_a_large_file(assets: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    stages = [CornersStage(), PointsStage(5000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*run the same again"):
            run(assets, tmp_path / "out", stages)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(assets, tmp_path / "out", stages)
    run(assets, tmp_path / "again", stages)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
