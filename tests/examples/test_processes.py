"""Runs as processes of their own: killed again and again, several at once, and cut over several."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples need voxgen[train]")
pytest.importorskip("tensorboard", reason="the examples need voxgen[train]")
if not hasattr(os, "fork"):
    pytest.skip("processes are forked, which is of Unix", allow_module_level=True)

from fork_server import EXAMPLES, ForkServer

gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch was built without gloo"
)

DEADLY = """
import io, os, signal, threading, time, torch
save, saved = torch.save, 0
def kill(after):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
def slow(state, file):
    global saved
    saved += 1
    whole = io.BytesIO()
    save(state, whole)
    content = whole.getvalue()
    for part, at in enumerate(range(0, len(content), len(content) // 20)):
        if (saved, part) == ({checkpoint}, {part}):
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(content[at : at + len(content) // 20])
        file.flush()
        time.sleep(0.01)
    if (saved, {part}) == ({checkpoint}, None):
        kill({delay})
torch.save = slow
if {checkpoint} == 0:
    kill({delay})
"""
"""A run that kills itself, wherever it is: while it writes a part of a checkpoint, or some time after one (0: after its start).

It does so itself because a test that watches it can be held up until it has ended. A checkpoint takes a fifth of a second at least.
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer("tiny_training", "train_sc_vae") as server:
        yield server


def lines(folder: Path) -> list[str]:
    path = folder / "losses.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def assert_same_runs(whole: Path, broken: Path) -> None:
    """Every loss of every step, and all that the last checkpoint holds, to the last bit."""
    assert lines(whole) == lines(broken)
    ends = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, broken)]
    for part in ("model", "average"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())
    for index, state in ends[0]["optimizer"]["state"].items():
        assert all(torch.equal(value, ends[1]["optimizer"]["state"][index][name]) for name, value in state.items())
    assert ends[0]["norms"] == ends[1]["norms"]


@pytest.mark.parametrize(("example", "steps", "kills"), [("tiny_training", 40, 5), ("train_sc_vae", 14, 2)])
def test_a_run_that_is_killed_again_and_again_is_the_same_run(
    example: str, steps: int, kills: int, tmp_path: Path, server: ForkServer
) -> None:
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log.txt"
    arguments = ["--smallest", "--steps", str(steps), "--checkpoint-every", "3"]
    chance = random.Random(7)
    assert server.wait(server.start(example, [*arguments, "--out", str(whole)], log)) == 0, log.read_text()
    for kill in range(kills):
        checkpoint, part = ((2, chance.randrange(20)), (1, None), (0, None))[kill % 3]
        deadly = DEADLY.format(checkpoint=checkpoint, part=part, delay=chance.uniform(0, 0.1))
        child = server.start(example, [*arguments, "--out", str(broken), "--resume"], log, deadly)
        assert server.wait(child) == -signal.SIGKILL, log.read_text()
        assert any(broken.glob(".voxgen-*.tmp")) or part is None
    assert len(lines(broken)) < steps, "killed too late to be a test"
    assert server.wait(server.start(example, [*arguments, "--out", str(broken), "--resume"], log)) == 0, log.read_text()
    assert list(broken.glob(".*.tmp")) == []
    assert_same_runs(whole, broken)
    assert "going on after step" in log.read_text()


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def together(server: ForkServer, arguments: list[str], log: Path, world: int = 2) -> None:
    """Run the tiny example as so many processes, as `accelerate launch` starts them."""
    shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    children = [server.start("tiny_training", arguments, log, RANK=str(i), LOCAL_RANK=str(i), **shared) for i in range(world)]
    assert [server.wait(child) for child in children] == [0] * world, log.read_text()


def assert_close_runs(first: Path, second: Path) -> None:
    """Losses and weights, but for the order of sums in float32."""
    for a, b in zip(lines(first), lines(second), strict=True):
        one, other = json.loads(a), json.loads(b)
        assert one["step"] == other["step"]
        assert one["total"] == pytest.approx(other["total"], rel=2e-5)
    weights = [torch.load(folder / "averaged.pt", weights_only=True) for folder in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        # Adam divides by the root of the mean square: where a gradient is all rounding, so is its step of up to the learning rate
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)


@gloo
def test_processes_train_as_one_does_with_as_many_parts(tmp_path: Path, server: ForkServer) -> None:
    log = tmp_path / "log.txt"
    common = ["--steps", "9", "--checkpoint-every", "4", "--schedule", "constant", "--budget", "60", "--picture-every", "5"]
    start = [*common, "--steps", "5"]
    for weights in ("equal", "tokens"):
        one, two = tmp_path / f"one-{weights}", tmp_path / f"two-{weights}"
        assert server.wait(server.start("tiny_training", [*common, "--part-weights", weights, "--parts", "2", "--out", str(one)], log)) == 0
        together(server, [*common, "--part-weights", weights, "--out", str(two)], log)
        assert_close_runs(one, two)
    assert lines(tmp_path / "one-equal")[1] != lines(tmp_path / "one-tokens")[1]  # parts are not quite equal, so this is another step

    cut = tmp_path / "cut"  # weights, averages and optimiser over two processes, then whole in one, then cut again
    together(server, [*start, "--fsdp", "--out", str(cut)], log)
    more = [*common, "--resume", "--out", str(cut)]
    assert server.wait(server.start("tiny_training", [*more, "--steps", "7", "--parts", "2"], log)) == 0, log.read_text()
    together(server, [*more, "--fsdp", "--elastic-memory", "0.5", "--memory-limit", "0.001"], log)
    assert_close_runs(tmp_path / "one-equal", cut)
    kept, plain = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (cut, tmp_path / "one-equal"))
    assert {name: value.shape for name, value in kept["model"].items()} == {name: value.shape for name, value in plain["model"].items()}
    assert "going on after step 7" in log.read_text()


@gloo
def test_all_processes_stop_where_one_fails(tmp_path: Path, server: ForkServer) -> None:
    log = tmp_path / "log.txt"
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    arguments = ["--smallest", "--steps", "60", "--poisoned", "7", "--out", str(tmp_path / "out")]
    children = [server.start("tiny_training", arguments, log, RANK=str(i), LOCAL_RANK=str(i), **shared) for i in range(2)]
    assert [server.wait(child) for child in children] == [1, 1], log.read_text()
    names = sorted(path.name for path in (tmp_path / "out").glob("failed-step-*.pt"))
    assert len(names) == 2
    assert names[0].removesuffix(".pt") == names[1].split("-process")[0] or names[1].removesuffix(".pt") == names[0].split("-process")[0]
    assert log.read_text().count("the loss is not finite") == 2


@gloo
def test_accelerate_launches_the_same_script(tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", free_port()]
    script = [str(Path(__file__).parent / "tiny_training.py"), "--smallest", "--steps", "3", "--out", str(tmp_path / "out")]
    paths = os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch, *script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout
    assert len(lines(tmp_path / "out")) == 3
