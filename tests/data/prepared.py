"""Small assets on disk, stages, and a short call for the tests of preparation."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import MeshWarning, MissingDependency
from voxgen.data import AssetInput, AssetRejected, Manifest, prepare
from voxgen.io import save_mesh


def write_assets(folder: Path, count: int = 7) -> Path:
    """Tetrahedra of different shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    for i in range(count):
        chance = torch.Generator().manual_seed(i)
        vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) + 0.2 * torch.rand(4, 3, generator=chance)
        save_mesh(TriMesh(vertices, faces), folder / f"asset{i}.ply")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True)
class CornersStage:
    """One cell with features for each vertex of an asset: cheap, ragged, and as deterministic as its input."""

    field: str = "corners"
    channels: int = 3

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "sparse"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "corners", "channels": self.channels}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        cells = ((asset.mesh.vertices + 0.5) * 16).int().clamp(0, 15).unique(dim=0)
        grid, _ = VoxelGrid.build(torch.nn.functional.pad(cells, (1, 0)), resolution=16, batch_size=1)
        feats = torch.rand(len(grid), self.channels, generator=torch.Generator().manual_seed(asset.seed))
        return {self.field: SparseTensor(grid, feats)}


@dataclass(frozen=True)
class DoubledStage:
    """Reads the field of a `CornersStage`."""

    @property
    def fields(self) -> Mapping[str, str]:
        return {"doubled": "sparse"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("corners",)

    def config(self) -> dict[str, Any]:
        return {"stage": "doubled"}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        return {"doubled": done["corners"].with_feats(2 * done["corners"].feats)}


@dataclass(frozen=True)
class FailingStage(CornersStage):
    """Raises what is no fault of its asset, from the fourth asset on; its field is that of a `CornersStage`."""

    error: type[Exception] = MissingDependency
    arguments: tuple[Any, ...] = ("the package hamster is needed",)

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        if asset.name > "asset3":
            raise self.error(*self.arguments)
        return super().run(asset, done)


@dataclass(frozen=True)
class MoodyStage(CornersStage):
    """Does to some assets what assets do to people: by name."""

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        if asset.name == "asset1.ply":
            raise AssetRejected("ugly", "asset1.ply: is not wanted.")
        if asset.name == "asset2.ply":
            raise ZeroDivisionError("a mistake in the stage")
        if asset.name == "asset3.ply":
            warnings.warn("this one looks odd", MeshWarning, stacklevel=2)
        if asset.name == "asset4.ply":
            os._exit(7)
        if asset.name == "asset5.ply":
            time.sleep(600)
        return super().run(asset, done)


STAGES = [CornersStage(), DoubledStage()]


def run(assets: Any, folder: Path, stages: Any = None, **options: Any) -> Manifest:
    """Prepare with `STAGES`, in this process, three assets a shard, unless it is told otherwise."""
    return prepare(assets, folder, stages or STAGES, **{"engine": "here", "assets_per_shard": 3, **options})
