"""The system in the box: its files, what it makes of pictures of assets that it never saw, and damage."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import FileFormatError, RangeError
from voxgen.data import condition_images, occupancy, procedural_dataset
from voxgen.models.pipelines import Generated, Trellis2Pipeline, shipped_folder, shipped_pipeline, shipped_pipelines
from voxgen.representations import OVoxel, fit_unit_cube

NAME = "voxgen/trellis2-small"
COUNT = 6


@cache
def pipeline() -> Trellis2Pipeline:
    return shipped_pipeline()


@cache
def pictures() -> list[Tensor]:
    """Of the first assets of the test split."""
    assets = procedural_dataset(COUNT, split="test")
    return [condition_images(a.mesh, 1, size=128, generator=torch.Generator().manual_seed(i)).images[0] for i, a in enumerate(assets)]


@cache
def made() -> Generated:
    return pipeline().generate(pictures(), generator=[torch.Generator().manual_seed(i) for i in range(COUNT)])


def test_it_is_small_and_named() -> None:
    assert NAME in shipped_pipelines()
    folder = shipped_folder(NAME)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    with pytest.raises(RangeError, match="there is no 'voxgen/other'; there are voxgen/trellis2-small"):
        shipped_folder("voxgen/other")


def test_pictures_become_assets_with_materials() -> None:
    found = made()
    assert found.ovoxel.resolution == (64, 64, 64)
    meshes = found.meshes("attributes")
    assert sum(mesh.num_faces > 500 for mesh in meshes) >= COUNT - 1  # a sampler may find nothing, but not often
    colors = found.ovoxel.materials["base_color"]
    assert float(colors.std(0).min()) > 0.05


def test_structures_follow_the_pictures() -> None:
    """The overlap with the asset in the picture is far above that with the assets in the other pictures."""
    cells = occupancy(made().structure, 16)[:, 0]
    assets = OVoxel.from_mesh([fit_unit_cube(a.mesh) for a in procedural_dataset(COUNT, split="test")], 64, materials=False)
    truth = occupancy(assets, 16)[:, 0]
    shared = (cells[:, None] & truth[None]).flatten(2).sum(2)
    overlap = shared / (cells[:, None] | truth[None]).flatten(2).sum(2)
    own = overlap.diagonal()
    others = (overlap.sum(1) - own) / (COUNT - 1)
    assert float(own.mean()) > 1.5 * float(others.mean())


def test_alone_as_in_a_batch() -> None:
    alone = pipeline().generate(pictures()[1], generator=torch.Generator().manual_seed(1))
    coords = made().ovoxel.grid.coords
    assert torch.equal(alone.ovoxel.grid.cells, coords[coords[:, 0] == 1, 1:])


def test_a_mesh_is_textured() -> None:
    mesh = fit_unit_cube(procedural_dataset(1, split="test")[0].mesh)
    found = pipeline().texture_mesh(mesh, pictures()[0], generator=torch.Generator().manual_seed(0))
    assert len(found.ovoxel) > 500
    assert "base_color" in found.ovoxel.materials


def test_other_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(shipped_folder(NAME), tmp_path / "copy")
    path = sorted((tmp_path / "copy").glob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{path.name} is not the file that was written"):
        Trellis2Pipeline.from_folder(tmp_path / "copy")
