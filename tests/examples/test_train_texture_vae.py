"""The training example of the texture VAE: its views, its tiles, and one short run, interrupted and whole."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

import train_texture_vae as example
from interruption import interrupted
from training import shapes, textures, views

from voxgen.core import TriMesh
from voxgen.models import TextureVAE, load_pretrained
from voxgen.ops.candidates import level_structures
from voxgen.ops.surface_cells import surface_channels, surface_grid
from voxgen.testing.shapes import box, rotated


def _mesh(seed: int = 3) -> TriMesh:
    return textures.textured(rotated(box((-0.35, -0.15, -0.2), (0.35, 0.15, 0.2))), seed)


def _shape(size: int = 48) -> views.Views:
    return views.convert(_mesh(), 32, size=size, count=3)


def test_textures_follow_from_the_seed_and_lie_on_the_same_surface() -> None:
    bare = shapes.random_shape(1)[1]
    one, again, other = (textures.textured(bare, seed) for seed in (1, 1, 2))
    pictures = [mesh.materials[0].base_color.image for mesh in (one, again, other) if mesh.materials[0].base_color is not None]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert torch.equal(one.corners(), bare.corners())
    assert one.uv is not None
    assert 0 <= float(one.uv.min()) <= float(one.uv.max()) <= 1
    flat = [textures.picture(torch.Generator().manual_seed(seed)).float().std((0, 1)).max() < 1 for seed in range(20)]
    assert sum(flat) < 5


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_axes_are_those_of_the_exchanged_mesh(axes: tuple[int, int, int]) -> None:
    mesh, shape = _mesh(), _shape()
    found = views.exchange_axes(shape, axes)
    turned = mesh.replace(vertices=mesh.vertices[:, list(axes)])
    assert torch.equal(found.grid.coords, surface_grid(turned, 32).coords)
    expected = surface_channels(turned, 8)
    assert torch.equal(found.geometry.grid.coords, expected.grid.coords)
    torch.testing.assert_close(found.geometry.feats, expected.feats, atol=1e-4, rtol=0)  # sums in another order
    drawn = (255 * views.photograph(turned, found.cameras[0])[0]).round()
    wrong = ((drawn - found.images[0].float()).abs() > 2).any(-1).float().mean()
    assert float(wrong) < 0.01  # samples on an edge may fall to either side
    assert float((found.images[0][..., 3] > 0).float().mean()) > 0.05


def test_cells_show_what_the_views_show() -> None:
    """A box that is red, whatever the light: each cell that a view sees is red; all are in their places among the features."""
    mesh = box((-0.3, -0.2, -0.25), (0.3, 0.2, 0.25))
    shape = views.convert(
        mesh.replace(attributes={"base_color": torch.tensor([1.0, 0.0, 0.0]).expand(len(mesh.vertices), 3)}), 32, size=64, count=8
    )
    covered = shape.seen[:, 3] > 0
    assert float(covered.float().mean()) > 0.8
    torch.testing.assert_close(
        shape.seen[covered][:, :3] / views.GAIN, torch.tensor([[0.5, -0.5, -0.5]]).expand(int(covered.sum()), 3), atol=0.02, rtol=0
    )
    assert torch.equal(shape.geometry.grid.coords, level_structures(shape.grid, 2)[0].parents.coords)
    for seed in range(4):
        other = views.recolored(shape, torch.Generator().manual_seed(seed))
        image = other.images[0]
        shown = image[image[..., 3] == 255][:, :3].float() / 255
        assert float(shown.std(0).max()) < 0.01
        assert float((shown.mean(0) - 0.5).abs().min()) > 0.49  # a corner of the cube of colours
        found = other.seen[covered][:, :3].mean(0) / views.GAIN + 0.5
        torch.testing.assert_close(found, shown.mean(0), atol=0.02, rtol=0)
    cells = shape.features().feats.reshape(-1, views.FACTOR**3, views.SEEN)
    assert int(cells[..., 3].sum()) == int(covered.sum())
    row = 11
    x, y, z = shape.grid.cells[row].tolist()
    parent = shape.geometry.grid.rows_of(torch.tensor([[0, x // 4, y // 4, z // 4]], dtype=torch.int32))
    assert torch.equal(cells[int(parent), x % 4 + 4 * (y % 4) + 16 * (z % 4)], shape.seen[row])


def test_views_come_back_from_disk_and_in_a_batch(tmp_path: Path) -> None:
    shape = _shape()
    views.store(shape, tmp_path / "0.npz")
    batch = views.batched([views.load(tmp_path / "0.npz"), shape])
    for i in range(2):
        assert torch.equal(batch.grid.sample(i).coords, shape.grid.coords)
        assert torch.equal(batch.images[i], shape.images[0])
        assert torch.equal(batch.cameras[i].world_to_camera, shape.cameras[0].world_to_camera)
    assert len(batch) == 2 * len(shape)
    single = shape.features().feats
    torch.testing.assert_close(batch.features().feats, torch.cat((single, single)), atol=1e-3, rtol=0)  # halves on disk


def test_tiles_give_the_gradient_of_whole_pictures_and_keep_less() -> None:
    truth = views.batched([_shape(96), _shape(96)])
    torch.manual_seed(0)
    training = example.Training(example.TINY | {"resolution": 8})
    training.per_step = 1
    found: list[tuple[dict[str, float], Tensor, float]] = []
    for tiles in (1, 2):
        training.tiles = tiles
        training.zero_grad()
        terms = training(truth, torch.Generator().manual_seed(0))
        terms.total.backward()
        gradient = torch.cat([p.grad.flatten() for p in training.parameters() if p.grad is not None])
        assert bool(gradient.isfinite().all())
        found.append((terms.numbers(), gradient, training.facts["kept_megabytes"]))
    (whole, expected, most), (parts, gradient, least) = found
    assert parts == pytest.approx(whole, rel=1e-5)
    assert float((gradient - expected).norm()) < 1e-5 * float(expected.norm())  # float32, sums in another order
    assert least < 0.8 * most


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    arguments = ["--smallest", "--steps", "4", "--checkpoint-every", "2", "--mask", "predicted"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = example.main([*arguments, "--out", str(whole)])

    interrupted(example.main, [*arguments, "--out", str(broken)], after=3)
    with pytest.raises(SystemExit, match="other values of tiles"):
        example.main([*arguments, "--tiles", "2", "--out", str(broken), "--resume"])
    found = example.main([*arguments, "--out", str(broken), "--resume"])

    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (whole, broken)]
    assert lines[0] == lines[1]  # every loss of every step, to the last bit
    assert {"l1", "ssim", "kl", "volume", "opacity", "mask"} <= set(json.loads(lines[0][0]))
    varying = {"seconds", "kept_megabytes"}  # memory that is shared between tensors counts once, if it is seen to be
    assert {k: v for k, v in found.items() if k not in varying} == {k: v for k, v in expected.items() if k not in varying}
    assert expected["seams"] < 1e-6
    assert expected["psnr"] > 10
    assert isinstance(load_pretrained(broken / "texture_vae.safetensors"), TextureVAE)
    assert (broken / "reconstructions.png").stat().st_size > 10_000
