"""What is kept of a prepared folder is made again when the folder is prepared anew with other settings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from training.encodings import Encoding
from training.flow_source import Wanted, latents_of, pictures_of

from voxgen.core import SparseTensor
from voxgen.data import FileSource, ImagesStage, OVoxelStage, ShardDataset, prepare
from voxgen.io import save_mesh
from voxgen.representations import OVoxel
from voxgen.testing import shapes

SIZE = 16


def prepared(folder: Path, resolution: int, view_seed: int) -> ShardDataset:
    """The same asset under the same name in the same folder."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    save_mesh(shapes.torus(), folder / "torus.ply")
    stages: list[Any] = [OVoxelStage(resolution, materials=False), ImagesStage(2, SIZE, seed=view_seed)]
    prepare([FileSource(str(folder / "torus.ply"), "torus")], folder / "data", stages, engine="here")
    return ShardDataset(folder / "data")


def read(data: ShardDataset, folder: Path, made: list[str]) -> tuple[SparseTensor, torch.Tensor]:
    """Its latent and its pictures, with a note of what was made and not read."""

    def encode(ovoxel: OVoxel) -> SparseTensor:
        made.append("latent")
        return SparseTensor(ovoxel.grid, ovoxel.dual_vertices)

    (folder / "vae").write_bytes(b"weights")
    wanted = Wanted("latents", folder / "vae", Encoding("ovoxel", OVoxelStage(8), encode))
    (latent,) = latents_of(data, wanted, folder / "cache", show=False)
    assert isinstance(latent, SparseTensor)
    return latent, pictures_of(data, SIZE, folder / "cache", show=False)[0, 0]


def test_a_folder_that_is_prepared_anew_is_not_read_stale(tmp_path: Path) -> None:
    made: list[str] = []
    before = read(prepared(tmp_path, 8, 0), tmp_path, made)
    assert made == ["latent"]
    same = read(prepared(tmp_path, 8, 0), tmp_path, made)
    assert made == ["latent"], "the same settings: it is kept"
    assert torch.equal(same[1], before[1])
    other = read(prepared(tmp_path, 10, 7), tmp_path, made)
    assert made == ["latent", "latent"]
    assert (before[0].grid.resolution[0], other[0].grid.resolution[0]) == (8, 10)
    assert not torch.equal(other[1], before[1]), "other views"
