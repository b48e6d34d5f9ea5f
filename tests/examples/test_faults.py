"""What ends a training run, and that nothing is lost: numbers that are not finite, full disks, checkpoints that do not fit."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples need voxgen[train]")
pytest.importorskip("tensorboard", reason="the examples need voxgen[train]")
resource = pytest.importorskip("resource", reason="full disks are made with a limit of file sizes, which is of Unix")

import tiny_training  # noqa: E402
from training import checkpoints, faults  # noqa: E402
from training.progress import Log  # noqa: E402

from voxgen.models import build  # noqa: E402
from voxgen.representations import OVoxel  # noqa: E402
from voxgen.testing.shapes import torus  # noqa: E402

SHORT = ["--smallest", "--steps", "8", "--checkpoint-every", "3"]


def lines(folder: Path) -> list[str]:
    return (folder / "losses.jsonl").read_text().splitlines()


def flipped(path: Path) -> None:
    """One bit of a weight is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of eight steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_training.main([*SHORT, "--out", str(folder)])
    return folder


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The folder of a run that ended after six of the eight steps, with two checkpoints."""
    folder = tmp_path / "half"
    tiny_training.main(["--smallest", "--steps", "6", "--checkpoint-every", "3", "--schedule", "constant", "--out", str(folder)])
    return folder


CONSTANT = ["--smallest", "--steps", "8", "--checkpoint-every", "3", "--schedule", "constant"]
"""A longer run than that of `half`, whose learning rate does not depend on how long it is."""


def test_steps_in_a_row_are_counted() -> None:
    watch = faults.FaultWatch(losses=2, gradients=3)
    fine, skipped = {"loss": True, "gradient": True}, {"loss": True, "gradient": False}
    assert [watch.see(**step) for step in (skipped, skipped, fine, skipped, skipped)] == [None] * 5
    assert watch.see(**skipped) == "the gradient is not finite, 3 steps in a row"
    watch = faults.FaultWatch(losses=2)
    assert watch.see(loss=False, gradient=False) is None
    assert watch.see(loss=False, gradient=False) == "the loss is not finite, 2 steps in a row"
    assert faults.FaultWatch().see(loss=False, gradient=True) == "the loss is not finite"


def test_a_loss_that_is_not_finite_ends_the_run_with_its_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"the loss is not finite") as ended:
        tiny_training.main(["--steps", "60", "--poisoned", "7", "--checkpoint-every", "1", "--out", str(out)])
    (kept,) = out.glob("failed-step-*.pt")
    step = int(kept.stem.split("-")[-1])
    message = str(ended.value)
    assert f"step {step}:" in message
    assert "asset 7" in message
    assert f"--replay {kept}" in message
    assert "velocity nan" in message
    assert len(lines(out)) == step
    state = faults.load_failed(kept, "tiny_training")
    assert state["step"] == step
    assert "asset 7" in [name for part in state["items"] for name, _ in part]
    assert bool(state["parts"][0].latent.feats.isnan().any())
    assert all(bool(value.isfinite().all()) for value in state["model"].values())
    assert step > 0
    before = torch.load(out / "checkpoint.pt", weights_only=True)  # after the step before
    assert all(torch.equal(value, before["model"][name]) for name, value in state["model"].items())

    capsys.readouterr()
    numbers = tiny_training.main(["--replay", str(kept)])
    said = capsys.readouterr().out
    assert str(numbers["total"]) == "nan"
    assert "latent.feats is not finite" in said
    assert "first result that is not finite: flow.input_layer (Linear)" in said
    assert "weights: all finite" in said


def test_a_gradient_that_is_not_finite_is_skipped_and_repeated_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--smallest", "--steps", "20", "--breaking", "7", "--out", str(out)]
    tiny_training.main(arguments)
    assert len(lines(out)) == 20  # skipped, as published
    with pytest.raises(SystemExit, match=r"the gradient is not finite\. The weights"):
        tiny_training.main([*arguments, "--bad-gradients", "1"])
    (kept,) = out.glob("failed-step-*.pt")
    then = faults.load_failed(kept, "tiny_training")["numbers"][0]
    assert tiny_training.main(["--replay", str(kept)]) == then  # to the last bit
    assert "gradients that are not finite: 1 (condition)" in capsys.readouterr().out


def test_steps_that_failed_hold_records_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ovoxel = OVoxel.from_mesh(torus(), 16, materials=False)
    vae: Any = build("voxgen/shape-vae-small")
    vae.encode(ovoxel)  # now tables hang on its grid
    faults.save_failed(tmp_path / "a.pt", {"parts": [ovoxel]})
    (found,) = faults.load_failed(tmp_path / "a.pt")["parts"]
    assert torch.equal(found.coords, ovoxel.coords)
    assert torch.equal(found.dual_vertices, ovoxel.dual_vertices)

    torch.save({"parts": [Path("somewhere")]}, tmp_path / "b.pt")
    with pytest.raises(SystemExit, match=r"b\.pt holds pathlib.*, which is no record of voxgen"):
        faults.load_failed(tmp_path / "b.pt")
    other = types.ModuleType("trainers")
    exec("class Record:\n    pass", vars(other))
    monkeypatch.setitem(sys.modules, "trainers", other)
    torch.save({"parts": [other.Record()]}, tmp_path / "e.pt")
    with pytest.raises(SystemExit, match=r"e\.pt holds trainers\.Record, which is no record of voxgen"):  # though it begins as an example
        faults.load_failed(tmp_path / "e.pt")
    torch.save({"step": 1}, tmp_path / "c.pt")
    with pytest.raises(SystemExit, match=r"c\.pt is not a failed step"):
        faults.load_failed(tmp_path / "c.pt")
    with pytest.raises(SystemExit, match=r"d\.pt does not exist"):
        faults.load_failed(tmp_path / "d.pt")


def test_a_damaged_checkpoint_is_told_and_the_one_before_goes_on(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_training.main([*CONSTANT, "--out", str(tmp_path / "whole")])
    checkpoint, before = half / "checkpoint.pt", half / "checkpoint-before.pt"
    flipped(checkpoint)
    torch.load(checkpoint, weights_only=True)  # torch does not notice
    with pytest.raises(SystemExit, match=r"checksum of its record .* --resume-from .*checkpoint-before\.pt goes on after its step \d"):
        tiny_training.main([*CONSTANT, "--resume", "--out", str(half)])
    tiny_training.main([*CONSTANT, "--resume-from", str(before), "--out", str(half)])
    assert lines(half) == lines(tmp_path / "whole")
    assert f"from {before}" in capsys.readouterr().out

    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is damaged: .*checkpoint-before\.pt, the one before, is whole"):
        checkpoints.load_checkpoint(checkpoint)
    checkpoint.unlink()
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is missing\. .*checkpoint-before\.pt, the one before, is whole"):
        tiny_training.main([*CONSTANT, "--resume", "--out", str(half)])
    flipped(before)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is missing\. .*, the one before, is damaged: .* Start anew without --resume"):
        checkpoints.load_checkpoint(checkpoint)


def test_a_checkpoint_of_something_else_is_told_exactly(whole: Path, tmp_path: Path) -> None:
    arguments = [*SHORT, "--resume", "--out", str(whole)]
    with pytest.raises(SystemExit, match=r"other values of learning_rate \(0\.01 there, 0\.5 here\), samples \(24 there, 20 here\)\. Give"):
        tiny_training.main([*arguments, "--learning-rate", "0.5", "--samples", "20"])
    with pytest.raises(SystemExit, match=r"1 processes × 1 parts = 1 a step; here are 1 × 2 = 2: .* Choose --parts"):
        tiny_training.main([*arguments, "--parts", "2"])
    shapes = r"another network .*: \d+ have another shape \(flow\.t_embedder\.mlp\.0\.weight: \(16, 256\) there, \(32, 256\) here, "
    with pytest.raises(SystemExit, match=shapes):
        tiny_training.main([*arguments, "--width", "32"])
    state = torch.load(whole / "checkpoint.pt", weights_only=True)
    state["model"]["flow.more"] = state["model"].pop("condition")
    module = tiny_training.Training(16)
    missing = r"1 weights of this one are not in it \(condition\); 1 of its weights are not in this one \(flow\.more\)"
    with pytest.raises(SystemExit, match=missing):
        checkpoints.load_weights(whole / "checkpoint.pt", module, state["model"])
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match=r"other\.pt is not a checkpoint of a training run; it holds: weights\."):
        tiny_training.main([*SHORT, "--resume-from", str(tmp_path / "other.pt"), "--out", str(tmp_path)])


def test_a_run_that_starts_anew_sets_aside_what_is_there(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = (half / "checkpoint.pt").read_bytes()
    tiny_training.main(["--smallest", "--steps", "1", "--out", str(half)])
    assert (half / "checkpoint-previous.pt").read_bytes() == old
    assert not (half / "checkpoint-before.pt").exists()
    assert "starting anew (without --resume)" in capsys.readouterr().out


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Files cannot grow beyond this, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_the_run_and_the_last_checkpoint_goes_on(half: Path, tmp_path: Path) -> None:
    before = (half / "checkpoint.pt").read_bytes()
    with (
        files_of_at_most(20_000),
        pytest.raises(SystemExit, match=r"after step 8: .* cannot write .*checkpoint\.pt: .*\n.*as it was after an earlier"),
    ):
        tiny_training.main([*CONSTANT, "--checkpoint-every", "100", "--resume", "--out", str(half)])
    assert (half / "checkpoint.pt").read_bytes() == before
    assert list(half.glob(".*.tmp")) == []
    tiny_training.main([*CONSTANT, "--resume", "--out", str(half)])
    tiny_training.main([*CONSTANT, "--out", str(tmp_path / "whole")])
    assert lines(half) == lines(tmp_path / "whole")
    with files_of_at_most(20_000), pytest.raises(SystemExit, match=r"after step 3: .*\nThere is no earlier checkpoint"):
        tiny_training.main([*CONSTANT, "--out", str(tmp_path / "new")])


def test_lines_of_the_log_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    log = Log(tmp_path, 0, True)
    log.losses(1, {"total": 1.0}, {})
    own, log.file = log.file, open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.warns(UserWarning, match=r"losses\.jsonl cannot be written: No space left on device\. Training goes on"):
        log.losses(2, {"total": 2.0}, {})
    log.losses(3, {"total": 3.0}, {})  # said once
    log.file.close()
    log.file = own
    with pytest.warns(UserWarning, match=r"is written again, and nothing is missing"):
        log.losses(4, {"total": 4.0}, {})

    class Full:
        def add_scalar(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    assert log.writer is not None
    log.writer.close()
    log.writer = Full()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(UserWarning, match=r"TensorBoard's file cannot be written: No space left"):
        log.losses(10, {"total": 10.0}, {})
    log.losses(20, {"total": 20.0}, {})
    log.close()
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 10, 20]

    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 30, "tot')  # torn by a kill
    Log(tmp_path, 5, True).close()
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
