"""prepare: errors that are no fault of an asset end the run, and no asset is rejected for them."""

from __future__ import annotations

import errno
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import CornersStage, DoubledStage, FailingStage, digests, run

from voxgen.core import TriMesh
from voxgen.core.errors import BackendUnavailable, CapacityError, CheckpointError, DeviceError, MissingDependency
from voxgen.data import FileSource, LatentStage, Manifest, OVoxelStage, StageFailed
from voxgen.data._pool import _Worker
from voxgen.models import build, save_pretrained


@pytest.mark.parametrize(
    ("error", "arguments", "raised"),
    [
        (MissingDependency, ("no hamster",), MissingDependency),
        (ModuleNotFoundError, ("no hamster",), MissingDependency),
        (DeviceError, ("no hamster",), DeviceError),
        (BackendUnavailable, ("no hamster",), BackendUnavailable),
        (CheckpointError, ("no hamster",), CheckpointError),
        (StageFailed, ("no hamster",), StageFailed),
        (torch.OutOfMemoryError, ("no hamster",), CapacityError),
        (PermissionError, (errno.EACCES, "no hamster"), PermissionError),
        (FileNotFoundError, (errno.ENOENT, "no hamster", "hamster.bin"), FileNotFoundError),
        (OSError, ("no hamster",), OSError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_run_ends_and_goes_on_when_it_is_put_right(
    error: type[Exception], arguments: tuple[Any, ...], raised: type[Exception], assets: Path, tmp_path: Path
) -> None:
    stages = [FailingStage(error=error, arguments=arguments), DoubledStage()]
    with pytest.raises(raised, match=r"asset3\.ply: FailingStage failed .*no hamster.*No asset is rejected.*run the same again") as caught:
        run(assets, tmp_path / "out", stages)
    assert isinstance(caught.value.__cause__, error)
    copy = pickle.loads(pickle.dumps(caught.value))  # as it comes from another process
    assert (type(copy), str(copy)) == (type(caught.value), str(caught.value))
    found = Manifest.read(tmp_path / "out")
    assert not found.rejected
    assert found.missing == 4
    assert run(assets, tmp_path / "out", [CornersStage(), DoubledStage()]).worked == 4
    run(assets, tmp_path / "whole", [CornersStage(), DoubledStage()])
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_what_stages_before_made_is_kept(assets: Path, tmp_path: Path) -> None:
    stages = [CornersStage(field="before"), FailingStage()]
    with pytest.raises(MissingDependency):
        run(assets, tmp_path / "out", stages)
    assert (tmp_path / "out" / "parts" / "before" / "00000003.safetensors").is_file()
    assert not (tmp_path / "out" / "parts" / "corners").exists(), "its shard was finished before, and the fourth asset has none"


def test_a_full_disk_in_a_stage_says_what_to_do_once(assets: Path, tmp_path: Path) -> None:
    stage = FailingStage(error=OSError, arguments=(errno.ENOSPC, "the cache is full"))
    with pytest.raises(OSError, match=r"prepare: asset3.*the cache is full.*make room") as caught:
        run(assets, tmp_path / "out", [stage])
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value).count("prepare:") == 1


def test_worker_processes_pass_it_on_and_are_stopped(assets: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="the package hamster is needed"):
        run(assets, tmp_path / "out", [FailingStage()], engine="processes", workers=2)
    assert not multiprocessing.active_children()
    assert not Manifest.read(tmp_path / "out").rejected


@dataclass(frozen=True)
class BrokenSource:
    """Whose loading the system refuses."""

    error: int
    name: str = "broken"

    def load(self) -> TriMesh:
        raise OSError(self.error, "hamster")


class UnreadableSource(BrokenSource):
    """Cannot be unpickled elsewhere."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return int, ("no number",)


def test_files_of_assets_that_cannot_be_read_are_rejected_but_not_for_a_machine_that_is_full(assets: Path, tmp_path: Path) -> None:
    sources = [assets / "asset0.ply", FileSource(str(assets / "gone.ply"), "gone.ply"), BrokenSource(errno.EIO)]
    manifest = run(sources, tmp_path / "out", [CornersStage()])
    assert {name: code for name, (code, _) in manifest.rejected.items()} == {"gone.ply": "missing", "broken": "unreadable"}
    with pytest.raises(OSError, match=r"broken: CornersStage failed .*hamster") as caught:
        run([assets / "asset0.ply", BrokenSource(errno.EMFILE)], tmp_path / "full", [CornersStage()])
    assert caught.value.errno == errno.EMFILE
    assert not Manifest.read(tmp_path / "full").rejected


def test_sources_that_workers_cannot_read_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="could not read a source: ValueError: invalid literal"):
        run([UnreadableSource(0)], tmp_path / "out", [CornersStage()], engine="processes", workers=1)
    assert not Manifest.read(tmp_path / "out").rejected


@pytest.mark.parametrize("change", ["gone", "other", "damaged"])
def test_weights_that_are_not_there_any_more(change: str, assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    torch.manual_seed(0)
    vae = build("voxgen/shape-vae-small")
    save_pretrained(vae, path)
    stage: LatentStage = pickle.loads(pickle.dumps(LatentStage(path)))  # as a worker gets it
    if change == "gone":
        path.unlink()
    elif change == "other":
        next(vae.parameters()).data.add_(1)
        save_pretrained(vae, path)
    else:
        path.write_bytes(path.read_bytes()[:100])
    words = "not the file that the preparation began with" if change == "other" else "cannot be read any more"
    with pytest.raises(StageFailed, match=f"LatentStage failed .*{words}"):
        run(assets / "asset1.ply", tmp_path / "out", [OVoxelStage(8), stage])
    assert not Manifest.read(tmp_path / "out").rejected


def test_a_worker_that_ends_while_it_has_nothing_to_do_is_replaced(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes memory back from a process that waits while this one writes."""
    real, killed = _Worker.outcome, []

    def outcome(worker: _Worker, stages: Any) -> Any:
        found = real(worker, stages)
        if found is not None and len(killed) < 2:
            worker.process.kill()
            worker.process.join()
            if killed:  # the second time it is noticed when the job is sent
                monkeypatch.setattr(type(worker.process), "is_alive", lambda process: True)
            killed.append(found.asset)
        elif found is not None:
            monkeypatch.undo()
        return found

    monkeypatch.setattr(_Worker, "outcome", outcome)
    manifest = run(assets, tmp_path / "out", [CornersStage()], engine="processes", workers=1)
    assert len(killed) == 2
    assert (manifest.kept, len(manifest.rejected)) == (7, 0)
