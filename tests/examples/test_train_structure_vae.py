"""The structure VAE's example: its volumes, what it measures, and a run from a prepared folder."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import cast

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

import train_structure_vae  # noqa: E402
from training import latent_vae, occupancy  # noqa: E402
from training.data import Source  # noqa: E402

from voxgen.core import Frame, VoxelGrid  # noqa: E402
from voxgen.data import OVoxelStage, ShardDataset, prepare, procedural_sources  # noqa: E402
from voxgen.data import occupancy as occupancy_of  # noqa: E402
from voxgen.models import StructureVAE, load_pretrained  # noqa: E402
from voxgen.representations import OVoxel  # noqa: E402
from voxgen.testing.shapes import rotated, torus  # noqa: E402


def grid_of(cells: list[tuple[int, int, int]], resolution: int = 4) -> VoxelGrid:
    coords = torch.tensor([(0, *cell) for cell in cells], dtype=torch.int32).reshape(-1, 4)
    return VoxelGrid.build(coords, resolution=resolution, batch_size=1, frame=Frame.unit(resolution))[0]


def test_volumes_are_the_pairs_of_cells_of_a_finer_o_voxel(tmp_path: Path) -> None:
    mesh = rotated(torus(0.3, 0.1, 24, 12))
    volume = occupancy.convert(mesh, 8)
    fine = OVoxel.from_mesh(mesh, 16, materials=False, frame=Frame.unit(16))
    assert torch.equal(volume.dense(), occupancy_of(fine, 8))
    occupancy.store(volume, tmp_path / "a.npz")
    assert torch.equal(occupancy.load(tmp_path / "a.npz").grid.coords, volume.grid.coords)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_axes_are_those_of_the_cube(axes: tuple[int, int, int]) -> None:
    volume = occupancy.convert(rotated(torus(0.3, 0.1, 24, 12)), 8)
    moved = occupancy.exchange_axes(volume, axes).dense()
    assert torch.equal(moved, volume.dense().permute(0, 1, *(2 + axis for axis in axes)))


def test_batches_count_cubes_that_hold_anything() -> None:
    empty, full = (occupancy.Occupied(grid_of(cells)) for cells in ([], [(1, 2, 3), (0, 0, 0)]))
    assert [len(empty), len(full)] == [0, 1]
    both = occupancy.batched([full, empty, full])
    assert len(both) == 2
    assert both.dense().flatten(1).sum(1).tolist() == [2, 0, 2]


def test_scores_are_shares_of_cells() -> None:
    truth, found = grid_of([(0, 0, 0), (1, 1, 1), (2, 2, 2)]), grid_of([(1, 1, 1), (3, 3, 3)])
    score = occupancy.Score.of(truth, found)
    assert (score.iou, score.precision, score.recall) == (pytest.approx(1 / 4), pytest.approx(1 / 2), pytest.approx(1 / 3))
    nothing = occupancy.Score.of(truth, grid_of([]))
    assert (nothing.iou, nothing.precision, nothing.recall) == (0, 0, 0)


def test_boxes_have_the_faces_that_can_be_seen_and_face_outwards() -> None:
    mesh = occupancy.boxes([(grid_of([(0, 0, 0), (1, 0, 0)]), (1.0, 0.0, 0.0))])
    assert mesh.num_faces == 2 * 10
    corners = mesh.corners()
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert float(volume) == pytest.approx(2 / 4**3, rel=1e-4)  # two cells of a quarter; negative if they faced inwards


def test_the_latent_is_scaled_to_a_standard_deviation_of_one() -> None:
    training = train_structure_vae.Training(train_structure_vae.TINY)
    volumes = [occupancy.convert(torus(0.2 + 0.02 * i, 0.1, 12, 8), 16) for i in range(3)]
    with torch.no_grad():
        train_structure_vae.normalize(training.vae, iter(volumes))
        means = torch.cat([training.vae.encode(volume.dense()).mean for volume in volumes])
    scaled = (means - training.vae.latents_shift) * training.vae.latents_scale
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(procedural_sources(6), folder, [OVoxelStage(32)], engine="here")
    return folder


def test_a_run_on_a_prepared_folder(prepared: Path, tmp_path: Path) -> None:
    arguments = ["--smallest", "--steps", "6", "--resolution", "16", "--data", str(prepared), "--axes", "upright", "--kl", "0.01"]
    numbers = train_structure_vae.main([*arguments, "--out", str(tmp_path)])
    assert set(numbers) >= {"iou", "precision", "recall", "steps", "seconds"}
    assert json.loads((tmp_path / "result.json").read_text()) == numbers
    losses = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert {"total", "bce", "dice", "l1", "kl"} <= set(losses[0])
    assert losses[0]["total"] == pytest.approx(losses[0]["bce"] + losses[0]["dice"] + 0.01 * losses[0]["kl"], rel=1e-4)
    assert losses[-1]["total"] < losses[0]["total"]
    vae = cast(StructureVAE, load_pretrained(tmp_path / "structure_vae.safetensors"))
    assert vae.latents_scale != 1
    assert (tmp_path / "reconstructions.png").stat().st_size > 5_000
    with pytest.raises(SystemExit, match=r"other values of .*kl"):
        train_structure_vae.main([*arguments, "--kl", "0.1", "--out", str(tmp_path), "--resume"])


def test_assets_that_are_held_out_are_not_trained_on(prepared: Path, tmp_path: Path) -> None:
    from training.arguments import parse

    task = train_structure_vae.TASK
    arguments = parse(task, ["--smallest", "--data", str(prepared), "--resolution", "16", "--out", str(tmp_path)])
    found = task.prepare(arguments, show=False)
    names = {source.name for source, _ in found.held_out}
    assert len(names) == 2
    assert names | set(found.training.read.data.names) == set(ShardDataset(prepared).names)  # pyright: ignore[reportAttributeAccessIssue]
    assert not names & set(found.training.read.data.names)  # pyright: ignore[reportAttributeAccessIssue]
    assert found.training.sizes == [1] * 4
    source, path = found.held_out[0]
    assert isinstance(source, latent_vae.ShardSource)
    assert source.mesh().materials  # that of the recipe, with its textures
    assert torch.equal(occupancy.load(path).dense(), occupancy_of(source.ovoxel, 16))


def test_axes_that_are_seen() -> None:
    assert len(set(latent_vae.ORDERS["any"])) == 6
    assert all(order[1] == 1 for order in latent_vae.ORDERS["upright"])
    volume = occupancy.convert(torus(0.3, 0.1, 12, 8), 8)
    data = latent_vae.SeenVolumes(lambda _: volume, [1], occupancy.KIND, latent_vae.ORDERS["upright"])
    chance = torch.Generator().manual_seed(0)
    assert {data.draw(chance) for _ in range(40)} == {(order, 0) for order in latent_vae.ORDERS["upright"]}
    assert data[0, ((0, 1, 2), 0)] is volume


def test_sources_without_a_recipe_have_the_surface_of_their_o_voxel() -> None:
    ovoxel = OVoxel.from_mesh(torus(0.3, 0.1, 24, 12), 16, materials=False)
    source = latent_vae.ShardSource("folder/chair.glb", ovoxel)
    assert source.mesh().num_faces == ovoxel.to_mesh().num_faces
    assert occupancy.KIND.mesh_of(cast(Source, source)).num_faces == ovoxel.to_mesh().num_faces
