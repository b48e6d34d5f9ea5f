"""The training example of the SS-VAE: its data, and one short run, interrupted and whole. What it shares is tested in test_train_sc_vae."""

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

import train_ss_vae as example
from interruption import interrupted
from training import shapes

from voxgen.core.errors import MeshError
from voxgen.metrics import mesh_report
from voxgen.models import SparseSDFVAE, load_pretrained
from voxgen.testing.shapes import box, rotated


def test_closed_shapes_are_closed_and_wind_outwards() -> None:
    kinds = set()
    for seed in range(60):
        kind, mesh = shapes.random_shape(seed, closed=True)
        a, b, c = mesh.vertices.double()[mesh.faces.long()].unbind(1)
        assert float((a * torch.linalg.cross(b, c)).sum()) > 0, (seed, kind)
        if kind not in kinds:  # the report is slow, so once a kind
            assert mesh_report(mesh).boundary_edges == 0, (seed, kind)
        kinds.add(kind)
    assert kinds == set(shapes.KINDS) - set(shapes.OPEN)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_axes_are_those_of_the_exchanged_mesh(axes: tuple[int, int, int]) -> None:
    mesh = rotated(box((-0.25, -0.15, -0.2), (0.25, 0.15, 0.2)))
    found = example.exchange_axes(example.convert(mesh, 16), axes)
    moved = mesh.replace(vertices=mesh.vertices[:, list(axes)])
    mirrored = axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
    expected = example.convert(moved.replace(faces=moved.faces.flip(1)) if mirrored else moved, 16)
    assert torch.equal(found.grid.coords, expected.grid.coords)
    assert torch.equal(found.sharp, expected.sharp)
    assert 0 < int(found.sharp.sum()) < len(found)
    torch.testing.assert_close(found.sdf.sdf_cells, expected.sdf.sdf_cells, atol=1e-5, rtol=0)  # sums of coordinates in another order


def test_meshes_without_an_inside_and_grids_without_room_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = box()
    with pytest.raises(MeshError, match="wind inwards"):
        example.convert(mesh.replace(faces=mesh.faces.flip(1)), 16)
    with pytest.raises(SystemExit):
        example.main(["--resolution", "16"])
    assert "at least 32; got 16" in capsys.readouterr().err


def test_volumes_come_back_from_disk_and_keep_their_labels_in_a_batch(tmp_path: Path) -> None:
    volumes = [example.convert(rotated(box((-0.25, -0.15, -side), (0.25, 0.15, side))), 16) for side in (0.1, 0.2)]
    for i, volume in enumerate(volumes):
        example.store(volume, tmp_path / f"{i}.npz")
    batch = example.batched([example.load(tmp_path / f"{i}.npz") for i in range(2)])
    assert torch.equal(batch.sharp, torch.cat([v.sharp for v in volumes]))
    for i, volume in enumerate(volumes):
        assert torch.equal(batch.sdf.sample(i).coords, volume.sdf.coords)
        assert torch.equal(batch.sdf.sample(i).sdf_cells, volume.sdf.sdf_cells)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    arguments = ["--smallest", "--steps", "6", "--checkpoint-every", "3"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = example.main([*arguments, "--out", str(whole)])

    interrupted(example.main, [*arguments, "--out", str(broken)], after=5)
    found = example.main([*arguments, "--out", str(broken), "--resume"])

    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (whole, broken)]
    assert lines[0] == lines[1]  # every loss of every step, to the last bit
    numbers = json.loads(lines[0][-1])
    assert {"inside", "extra", "sharp", "kl", "subdivision_0", "subdivision_1", "subdivision_2"} <= set(numbers)
    assert numbers["extra"] == 0  # on the true structure there are no cells but the true ones
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    ends = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, broken)]
    vae = load_pretrained(broken / "ss_vae.safetensors")
    assert isinstance(vae, SparseSDFVAE)
    assert vae.decoder.config.early_pruning
    for name, value in vae.state_dict().items():
        assert torch.equal(value, ends[0]["average"][f"module.vae.{name}"])
        assert torch.equal(value, ends[1]["average"][f"module.vae.{name}"])
    assert (broken / "reconstructions.png").stat().st_size > 10_000
    assert list((broken / "tensorboard").iterdir())
