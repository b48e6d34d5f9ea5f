"""prepare: what its stages make of assets, and the settings that they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import DtypeError, RangeError
from voxgen.data import (
    AssetInput,
    FileSource,
    ImagesStage,
    LatentStage,
    OVoxelStage,
    PointsStage,
    SDFStage,
    ShardDataset,
    condition_images,
    prepare,
    procedural_asset,
    procedural_sources,
)
from voxgen.io import save_mesh
from voxgen.models import build, save_pretrained
from voxgen.representations import OVoxel, fit_unit_cube
from voxgen.testing import shapes


def test_real_stages_make_what_their_records_make(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_pretrained(build("voxgen/shape-vae-small"), tmp_path / "shape.safetensors")
    material, structure = build("voxgen/material-vae-small"), build("voxgen/structure-vae-small")
    stages = [
        OVoxelStage(16, precision="exact"),
        SDFStage(16),
        PointsStage(200),
        ImagesStage(2, size=24),
        LatentStage(tmp_path / "shape.safetensors"),
        LatentStage(material, dtype="float16"),
        LatentStage(structure, resolution=16, logvar=True),
        LatentStage(build("voxgen/sdf-vae-small")),
        LatentStage(build("voxgen/sparse-flex-vae-small"), resolution=4, logvar=True),
    ]
    manifest = prepare(procedural_sources(2), tmp_path / "out", stages, engine="here")
    assert manifest.kept == 2
    item = ShardDataset(tmp_path / "out")[1]
    mesh = fit_unit_cube(procedural_asset(1).mesh)
    found = OVoxel.from_mesh(mesh, 16, frame=item["ovoxel"].frame)
    assert torch.equal(item["ovoxel"].dual_vertices, found.dual_vertices)
    assert torch.equal(item["ovoxel"].materials["base_color"], found.materials["base_color"])
    vae: Any = build("voxgen/shape-vae-small")
    vae.load_state_dict(LatentStage(tmp_path / "shape.safetensors")._loaded().state_dict())
    with torch.no_grad():
        expected = vae.eval().encode(found).z
    torch.testing.assert_close(item["shape_latent"].feats, expected.feats, rtol=1e-5, atol=1e-5)  # same ops, other thread counts
    assert item["material_latent"].grid.same_cells(item["shape_latent"].grid)
    assert item["material_latent"].dtype == torch.float16
    assert item["structure_latent"].mean.shape == (1, 8, 4, 4, 4)
    assert item["flex_latent"].mean.grid.resolution == (4, 4, 4)
    chance = torch.Generator().manual_seed(AssetInput(procedural_sources(2)[1]).seed)
    assert torch.equal(item["images"].images, condition_images(mesh, 2, size=24, generator=chance).images)
    assert float(item["points"].points.abs().max()) <= 0.5
    assert float(item["sdf"].sdf_cells.min()) < 0


def test_assets_are_turned_and_fitted(tmp_path: Path) -> None:
    mesh = shapes.box().replace(vertices=shapes.box().vertices * torch.tensor([1.0, 2.0, 30.0]) + 100)
    save_mesh(mesh, tmp_path / "box.ply")
    flat = AssetInput(FileSource(str(tmp_path / "box.ply"), "box.ply", "y")).mesh
    tall = AssetInput(FileSource(str(tmp_path / "box.ply"), "box.ply", "z")).mesh
    assert torch.equal(tall.vertices, TriMesh(flat.vertices, flat.faces, up="z").with_up("y").vertices)
    for mesh, longest in ((flat, 2), (tall, 1)):
        low, high = mesh.bounds()
        assert int((high - low).argmax()) == longest
        torch.testing.assert_close(high[longest], torch.tensor(0.499995), rtol=0, atol=1e-6)
        torch.testing.assert_close(low, -high, rtol=0, atol=1e-6)


def test_latents_that_are_not_finite_or_too_many_are_rejected(assets: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build("voxgen/shape-vae-small")
    manifest = prepare(assets / "asset1.ply", tmp_path / "a", [OVoxelStage(16), LatentStage(vae, max_tokens=3)], engine="here")
    assert manifest.rejected["asset1.ply"][0] == "cells"
    for parameter in vae.parameters():
        parameter.data.fill_(torch.nan)
    manifest = prepare(assets / "asset1.ply", tmp_path / "b", [OVoxelStage(16), LatentStage(vae)], engine="here")
    assert manifest.rejected["asset1.ply"][0] == "latent"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: OVoxelStage(0), RangeError),
        (lambda: OVoxelStage(8, precision="double"), RangeError),  # pyright: ignore[reportArgumentType]
        (lambda: OVoxelStage(8, max_cells=0), RangeError),
        (lambda: SDFStage(8, scale=1.5), RangeError),
        (lambda: SDFStage(8, sign="guess"), RangeError),  # pyright: ignore[reportArgumentType]
        (lambda: PointsStage(0), RangeError),
        (lambda: ImagesStage(0), RangeError),
        (lambda: LatentStage("nowhere.safetensors"), FileNotFoundError),
        (lambda: LatentStage(torch.nn.Linear(2, 2)), DtypeError),
        (lambda: LatentStage(5), DtypeError),  # pyright: ignore[reportArgumentType]
        (lambda: LatentStage(build("voxgen/sparse-flex-vae-small")), RangeError),
        (lambda: LatentStage(build("voxgen/shape-vae-small"), resolution=4), RangeError),
        (lambda: procedural_sources(-1), RangeError),
    ],
)
def test_stages_check_their_settings(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
