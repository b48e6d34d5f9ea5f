"""The training example: its shapes and data, and that a run which is killed goes on as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

from train_sc_vae import TASK, exchange_axes  # noqa: E402
from training import average, batches, data, shapes, state  # noqa: E402

from voxgen.core import Frame  # noqa: E402
from voxgen.io import save_mesh  # noqa: E402
from voxgen.metrics import mesh_report  # noqa: E402
from voxgen.models.checkpoints import read_trellis2  # noqa: E402
from voxgen.representations import OVoxel  # noqa: E402
from voxgen.testing.shapes import rotated, torus  # noqa: E402


def test_shapes_are_those_of_their_seeds_and_fill_the_cube() -> None:
    kinds = set()
    for seed in range(80):
        kind, mesh = shapes.random_shape(seed)
        again = shapes.random_shape(seed)[1]
        assert torch.equal(mesh.vertices, again.vertices)
        assert torch.equal(mesh.faces, again.faces)
        low, high = mesh.bounds()
        assert float((high - low).max()) == pytest.approx(1, abs=1e-4)
        assert float(torch.stack((low, high)).abs().max()) < 0.5
        if kind != "union" and kind not in kinds:  # the report is slow, so once a kind
            assert (mesh_report(mesh).boundary_edges == 0) == (kind not in ("bowl", "vase")), kind
        kinds.add(kind)
    assert kinds == set(shapes.KINDS)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_axes_are_those_of_the_exchanged_mesh(axes: tuple[int, int, int]) -> None:
    mesh = rotated(torus(0.3, 0.1, 24, 12))
    frame = Frame.unit(12)
    found = exchange_axes(OVoxel.from_mesh(mesh, 12, materials=False, frame=frame), axes)
    moved = mesh.replace(vertices=mesh.vertices[:, list(axes)])
    expected = OVoxel.from_mesh(moved, 12, materials=False, frame=frame)
    assert torch.equal(found.coords, expected.coords)
    assert torch.equal(found.intersected, expected.intersected)
    torch.testing.assert_close(
        found.dual_vertices, expected.dual_vertices, atol=1e-4, rtol=0
    )  # a least-squares point, solved in another order


def take(sampler: batches.BudgetSampler, count: int) -> list[list[batches.Item]]:
    return list(itertools.islice(iter(sampler), count))


def test_batches_keep_to_the_budget_and_take_every_shape_once_an_epoch() -> None:
    cells = [5, 90, 30, 31, 45, 10, 10, 200]
    for number in range(5):
        epoch = batches.BudgetSampler(cells, 100, seed=3).epoch(number)
        assert sorted(index for batch in epoch for index, _ in batch) == list(range(8))
        assert all(len(batch) == 1 or sum(cells[i] for i, _ in batch) <= 100 for batch in epoch)
    assert batches.BudgetSampler(cells, 100, 3).epoch(0) != batches.BudgetSampler(cells, 100, 3).epoch(1)
    assert batches.BudgetSampler(cells, 100, 3).epoch(0) != batches.BudgetSampler(cells, 100, 4).epoch(0)


@pytest.mark.parametrize("world", [1, 3])
def test_batches_go_on_where_they_stopped(world: int) -> None:
    cells = [20 + i for i in range(11)]
    for rank in range(world):
        whole = take(batches.BudgetSampler(cells, 60, 0, rank, world), 25)
        for done in (1, 4, 13):
            assert take(batches.BudgetSampler(cells, 60, 0, rank, world, done), 25 - done) == whole[done:]
    epoch = batches.BudgetSampler(cells, 60, 0, 0, world).epoch(0)
    assert len(epoch) % world == 0
    ranks = [take(batches.BudgetSampler(cells, 60, 0, rank, world), len(epoch) // world) for rank in range(world)]
    assert [batch for step in zip(*ranks, strict=True) for batch in step] == epoch


def test_a_folder_of_meshes(tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    (folder / "deeper").mkdir(parents=True)
    for i, name in enumerate(("a.obj", "b.ply", "deeper/c.glb", "d.stl")):
        save_mesh(torus(0.3 + 0.1 * i, 0.1, 16, 8), folder / name)
    (folder / "broken.glb").write_bytes(b"not a mesh")
    (folder / "notes.txt").write_text("not a mesh either")
    training, measured = data.find_sources(folder, 0, 2)
    assert len(training) + len(measured) == 5
    assert len(measured) == 2
    assert not set(training) & set(measured)
    with pytest.warns(UserWarning, match=r"broken\.glb is left out"):
        ready = data.prepare(training + measured, TASK.kind, 8, tmp_path / "cache", show=False)
    assert sorted(s.name for s, _ in ready) == ["a.obj", "b.ply", "d.stl", "deeper/c.glb"]
    before = {path: path.stat().st_mtime_ns for _, path in ready}
    with pytest.warns(UserWarning, match="left out"):
        data.prepare(training + measured, TASK.kind, 8, tmp_path / "cache", show=False)
    assert {path: path.stat().st_mtime_ns for _, path in ready} == before
    with pytest.raises(SystemExit, match="holds 0 meshes"):
        data.find_sources(tmp_path / "cache", 0, 2)


def test_gradients_are_clipped_to_a_percentile_of_their_past() -> None:
    weight = nn.Parameter(torch.zeros(1))
    clip = state.AdaptiveClip(limit=1.0, percentile=50, window=5)
    for norm in (0.1, 0.2, 0.3, 0.4, 0.5):
        weight.grad = torch.tensor([norm])
        assert clip([weight]) == (pytest.approx(norm), True)
        assert float(weight.grad) == pytest.approx(norm)  # below the limit, and the past is too short
    weight.grad = torch.tensor([7.0])
    assert clip([weight]) == (7.0, True)
    assert float(weight.grad) == pytest.approx(0.3, rel=1e-4)
    weight.grad = torch.tensor([float("nan")])
    assert clip([weight])[1] is False
    assert list(clip.norms) == pytest.approx([0.2, 0.3, 0.4, 0.5, 7.0])


def test_the_average_follows_quickly_first_and_slowly_later() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    averaged = average.moving_average(model, 0.9)
    averaged.update_parameters(model)
    nn.init.ones_(model.weight)
    expected = 0.0
    for n in range(1, 300):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + 1 - decay
        averaged.update_parameters(model)
        if n in (1, 5, 50):
            assert float(averaged.module.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(averaged.module.weight.detach()) == pytest.approx(1, abs=1e-6)


KILLED_BETWEEN_CHECKPOINTS = """
import os, signal, sys, train_sc_vae as t
from training.run import Run
update = Run.update
def deadly(self, *args):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, *args)
Run.update = deadly
t.main(sys.argv[1:])
"""

KILLED_WHILE_WRITING = """
import io, os, signal, sys, torch, train_sc_vae as t
save = torch.save
def deadly(state, file):
    if state["step"] < 6:
        return save(state, file)
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = deadly
t.main(sys.argv[1:])
"""


def killed(program: str, arguments: list[str]) -> None:
    paths = os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    import train_sc_vae

    arguments = ["--smallest", "--steps", "8", "--checkpoint-every", "3"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train_sc_vae.main([*arguments, "--out", str(whole)])
    killed(KILLED_BETWEEN_CHECKPOINTS, [*arguments, "--out", str(broken)])
    killed(KILLED_WHILE_WRITING, [*arguments, "--out", str(broken), "--resume"])
    assert len(list(broken.glob("*.tmp"))) == 1
    found = train_sc_vae.main([*arguments, "--out", str(broken), "--resume"])
    assert list(broken.glob("*.tmp")) == []

    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (whole, broken)]
    assert [json.loads(line)["step"] for line in lines[0]] == list(range(8))
    assert lines[0] == lines[1]  # every loss of every step, to the last bit
    ends = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, broken)]
    for part in ("model", "average"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())
    assert ends[0]["norms"] == ends[1]["norms"]
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    for name in ("encoder", "decoder"):
        module = read_trellis2(broken / name)
        assert all(torch.equal(value, ends[0]["average"][f"module.vae.{name}.{key}"]) for key, value in module.state_dict().items())
    assert (broken / "reconstructions.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="other values of seed"):
        train_sc_vae.main([*arguments, "--out", str(broken), "--resume", "--seed", "1"])


def test_a_folder_without_one_usable_mesh_ends_the_run_with_its_names(tmp_path: Path) -> None:
    (tmp_path / "rubbish.obj").write_text("hello")
    with (
        pytest.warns(UserWarning, match=r"rubbish.obj is left out"),
        pytest.raises(SystemExit, match=r"none of the 1 shapes .*rubbish.obj"),
    ):
        data.prepare([data.Source("rubbish.obj", tmp_path / "rubbish.obj")], TASK.kind, 16, tmp_path / "out", show=False)
