"""The material SC-VAE's example: its volumes, what it measures, and runs of both stages."""

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

import train_material_vae  # noqa: E402
from training import colors, latent_vae, ovoxels  # noqa: E402
from training.data import Source  # noqa: E402
from training.textures import textured  # noqa: E402

from voxgen.core import Frame  # noqa: E402
from voxgen.models import SCVAE, DecodedMaterials, load_pretrained  # noqa: E402
from voxgen.representations import OVoxel  # noqa: E402
from voxgen.testing.shapes import rotated, torus  # noqa: E402

RING = textured(rotated(torus(0.3, 0.1, 24, 12)), 5)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_materials_stay_with_their_cells(axes: tuple[int, int, int]) -> None:
    made = ovoxels.shape_and_materials_of(RING, 12)
    moved = ovoxels.exchange_axes(made, axes)
    bare = ovoxels.exchange_axes(ovoxels.bare(made), axes)
    assert torch.equal(moved.intersected, bare.intersected)
    assert bare.materials == {}
    coords = made.coords[:, [0, *(1 + axis for axis in axes)]]
    rows = moved.grid.rows_of(coords)
    for name, value in made.materials.items():
        assert torch.equal(moved.materials[name][rows], value), name


def test_what_the_networks_read() -> None:
    made = OVoxel.from_mesh(RING, 12, materials=("base_color", "metallic", "roughness", "alpha", "emissive"), frame=Frame.unit(12))
    kept = ovoxels.colored(made)
    assert list(kept.materials) == ["base_color", "metallic", "roughness", "alpha"]
    assert kept.crossing_sign is None
    assert kept.material_tensor().feats.shape == (len(made), 6)


class Unchanged(torch.nn.Module):
    """Gives back what it is given, but for a shade that is added to the base colour."""

    def __init__(self, shade: float) -> None:
        super().__init__()
        self.shade = shade


def returned(network: Unchanged, truth: OVoxel) -> colors.Returned:
    materials = {name: value.clone() for name, value in truth.materials.items()}
    materials["base_color"] = materials["base_color"] + network.shade
    head = truth.material_tensor()
    return colors.Returned(DecodedMaterials(head, materials, "srgb", (), ()), 7)


def test_scores_of_known_errors(tmp_path: Path) -> None:
    kind = train_material_vae.TASK.kind
    source = Source("ring", 3)
    mesh = kind.mesh_of(source)
    assert mesh.materials[0].base_color is not None  # in its texture, which the pictures are compared with
    made = kind.convert(mesh, 24)
    kind.save(made, path := tmp_path / "ring.npz")
    exact, shaded = (
        colors.MEASURES.measure(Unchanged(shade), returned, [(source, path)], kind, torch.device("cpu"))[0].score for shade in (0.0, 0.1)
    )
    assert (exact.l1, exact.surface, exact.tokens) == (0, 0, 7)
    assert exact.psnr == exact.best
    expected = (made.materials["base_color"].float() + 0.1).clamp(max=1) - made.materials["base_color"].float()
    assert shaded.l1 == pytest.approx(float(expected.mean()), abs=1e-5)
    assert shaded.psnr < exact.psnr


def test_both_stages(tmp_path: Path) -> None:
    arguments = ["--smallest", "--steps", "6", "--out", str(tmp_path)]
    numbers = train_material_vae.main(arguments)
    assert set(numbers) >= {"l1", "surface", "psnr", "best", "steps"}
    losses = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert set(losses[0]) == {"step", "total", "l1", "kl"}
    assert losses[-1]["l1"] < losses[0]["l1"]
    vae = cast("SCVAE[DecodedMaterials]", load_pretrained(tmp_path / "material_vae.safetensors"))
    assert vae.normalization is not None
    assert vae.normalization.channels == train_material_vae.TINY["latent_channels"]
    assert (tmp_path / "reconstructions.png").stat().st_size > 5_000

    more = ["--views", "1", "--view-size", "48", "--resume"]
    train_material_vae.main([*arguments, "--steps", "8", *more])  # goes on where the first stage ended
    losses = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses] == list(range(8))
    assert {"base_color_ssim", "surface_ssim"} <= set(losses[6])
    weighted = losses[6]["l1"] + 0.2 * (losses[6]["base_color_ssim"] + losses[6]["surface_ssim"]) + train_material_vae.KL * losses[6]["kl"]
    assert losses[6]["total"] == pytest.approx(weighted, rel=1e-4)


def test_boxes_of_shapes(tmp_path: Path) -> None:
    made = ovoxels.shape_and_materials_of(RING, 32)
    kind = train_material_vae.TASK.kind
    data = latent_vae.SeenVolumes(lambda _: made, [len(made)], kind, latent_vae.ORDERS["upright"], (16, ovoxels.select))
    assert data.sizes == [min(len(made), 3 * 16**2)]
    chance = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(20):
        (order, place) = data.draw(chance)
        part = data[0, (order, place)]
        assert torch.equal(part.coords, data[0, (order, place)].coords)  # nothing but the item decides
        spread = part.coords[:, 1:].amax(0) - part.coords[:, 1:].amin(0)
        assert 0 < len(part) <= len(made)
        assert int(spread.max()) < 16
        whole = made if order == (0, 1, 2) else ovoxels.exchange_axes(made, order)
        rows = whole.grid.rows_of(part.coords)
        assert torch.equal(part.materials["base_color"], whole.materials["base_color"][rows])
        starts.add(place)
    assert len(starts) == 20
    with pytest.raises(SystemExit):
        train_material_vae.main(["--smallest", "--crop", "12", "--out", str(tmp_path)])


def test_pictures_of_a_batch_show_its_samples() -> None:
    training = train_material_vae.Training(train_material_vae.TINY)
    training.views, training.size = 2, 32
    batch = OVoxel.batched([ovoxels.shape_and_materials_of(textured(torus(0.2 + 0.1 * i, 0.1, 12, 8), i), 16) for i in range(2)])
    target = training.seen(batch, torch.Generator().manual_seed(0))
    assert target.sample.tolist() == [0, 0, 1, 1]
    assert target.meshes is not None
    assert [mesh.num_faces for mesh in target.meshes] == [batch.sample(i).to_mesh().num_faces for i in range(2)]
