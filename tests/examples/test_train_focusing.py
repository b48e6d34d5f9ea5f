"""The training example of Focusing: its data, what a step decodes, and one short run, interrupted and whole."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

import train_focusing as example
from interruption import interrupted
from training.memory import KeptForBackward

from voxgen.models import SparseFlexVAE, load_pretrained
from voxgen.testing.shapes import box, merged, rotated, sphere


def _shape(resolution: int = 32) -> example.Shapes:
    return example.convert(rotated(box((-0.25, -0.15, -0.2), (0.25, 0.15, 0.2))), resolution)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_axes_are_those_of_the_exchanged_mesh(axes: tuple[int, int, int]) -> None:
    shape = _shape()
    found = example.exchange_axes(shape, axes)
    (mesh,), (old,) = found.meshes, shape.meshes
    a, b, c = mesh.vertices[mesh.faces.long()].unbind(1)
    assert float((a * torch.linalg.cross(b, c)).sum()) > 0  # still wound outwards
    torch.testing.assert_close(mesh.vertices, old.vertices[:, list(axes)])
    expected = example.convert(mesh, 32)
    assert torch.equal(found.fine.coords, expected.fine.coords)
    assert bool((found.latent.rows_of(found.cloud.voxels(8, skin=0).coords) >= 0).all())
    outward = (found.cloud.points - found.cloud.points.mean(0)) * found.cloud.normals
    assert bool((outward.sum(1) > 0).all())


def test_shapes_come_back_from_disk_and_in_a_batch(tmp_path: Path) -> None:
    shapes = [_shape(), example.convert(rotated(sphere(0.3, 2)), 32)]
    for i, shape in enumerate(shapes):
        example.store(shape, tmp_path / f"{i}.npz")
    batch = example.batched([example.load(tmp_path / f"{i}.npz") for i in range(2)])
    assert len(batch) == sum(len(shape) for shape in shapes)
    for i, shape in enumerate(shapes):
        assert torch.equal(batch.latent.sample(i).coords, shape.latent.coords)
        assert torch.equal(batch.fine.sample(i).coords, shape.fine.coords)
        assert torch.equal(batch.cloud.sample(i).normals, shape.cloud.normals)
        assert torch.equal(batch.meshes[i].faces, shape.meshes[0].faces)
    children = example.children_that_exist(batch.latent, batch.fine)
    assert children.any(1).float().mean() > 0.5
    assert not bool(children.all())


def test_a_step_decodes_what_its_view_needs() -> None:
    shape = example.convert(merged(rotated(sphere(0.25, 3)), box((0.1, 0.1, -0.4), (0.4, 0.4, -0.2))), 64)
    kept = {}
    for carve, zoom in ((False, False), (True, False), (True, True)):
        torch.manual_seed(0)
        training = example.Training(example.TINY)
        training.carve, training.zoom, training.size, training.count, training.later = carve, zoom, 64, (160, 220), 0.0
        for progress in (0.0, 1.0):
            training.progress = progress
            terms = training(shape, torch.Generator().manual_seed(0))
            assert ("tsdf" in terms.terms) == (progress == 0)
            assert ("depth" in terms.terms) == (progress == 1)
            terms.total.backward()
            assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in training.parameters())
        kept[carve, zoom] = training.facts
        assert training.facts["latents"] == len(shape.latent)
    assert kept[False, False]["decoded"] == len(shape.latent)
    assert 0.4 < kept[True, False]["decoded"] / len(shape.latent) < 0.9
    assert 160 <= kept[True, True]["decoded"] <= 220
    megabytes = [facts["kept_megabytes"] for facts in kept.values()]
    assert megabytes[0] > megabytes[1] > megabytes[2]


def test_memory_is_counted_once() -> None:
    x = torch.randn(1000, requires_grad=True)
    with KeptForBackward() as kept:
        y = x.exp()
        _ = (y * y.detach()).sum()
    assert kept.bytes == 4000  # the result of exp, which both operations keep


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    arguments = ["--smallest", "--steps", "6", "--checkpoint-every", "3", "--warm-up", "0.5", "--tsdf-later", "0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = example.main([*arguments, "--out", str(whole)])

    interrupted(example.main, [*arguments, "--out", str(broken)], after=5)
    with pytest.raises(SystemExit, match="other values of carve"):
        example.main([*arguments, "--no-carve", "--out", str(broken), "--resume"])
    found = example.main([*arguments, "--out", str(broken), "--resume"])

    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (whole, broken)]
    assert lines[0] == lines[1]  # every loss of every step, to the last bit
    first, last = (json.loads(lines[0][i]) for i in (0, -1))
    assert {"tsdf", "kl", "tv", "flex_consistency", "flex_weights", "occupancy_0", "occupancy_1"} <= set(first)
    assert {"mask", "depth", "normal", "normal_ssim"} <= set(last)
    assert "tsdf" not in last
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    vae = load_pretrained(broken / "focusing.safetensors")
    assert isinstance(vae, SparseFlexVAE)
    assert vae.decoder.config.norm == "per_voxel"
    for name in ("reconstructions.png", "views.png"):
        assert (broken / name).stat().st_size > 10_000
