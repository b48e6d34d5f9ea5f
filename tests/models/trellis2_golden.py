"""The goldens of TRELLIS.2's autoencoders: networks built from their constructors, loaded through the strict import; their inputs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.models import SCDecoder, SCEncoder, build
from voxgen.models.checkpoints import load_trellis2
from voxgen.ops.resample import Structure

FOLDER = Path(__file__).parents[1] / "golden"
NAMES = {
    "FlexiDualGridVaeEncoder": "trellis2/shape-encoder",
    "FlexiDualGridVaeDecoder": "trellis2/shape-decoder",
    "SparseUnetVaeEncoder": "trellis2/material-encoder",
    "SparseUnetVaeDecoder": "trellis2/material-decoder",
}


class Golden:
    """One golden: its description and arrays."""

    def __init__(self, name: str) -> None:
        self.info: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def weights(self, network: str) -> dict[str, Tensor]:
        tensors = self.info["networks"][network]["tensors"]
        return {k: torch.from_numpy(v) for k, v in recipe.state_dict(tensors, self.info["seed"]).items()}

    def build(self, network: str, **overrides: Any) -> Any:
        spec = self.info["networks"][network]
        module = build(NAMES[spec["class"]], **{**spec["constructor"], **overrides})
        assert isinstance(module, (SCEncoder, SCDecoder))
        load_trellis2(module, self.weights(network))
        return module

    def normal(self, key: str) -> Tensor:
        return torch.from_numpy(recipe.normal(key, tuple(self.info["inputs"][key]["shape"]), self.info["seed"]))

    def structures(self, fine_resolution: int = 32) -> tuple[Structure, ...]:
        """The given structure, from the golden's voxels of each stage."""
        levels = [key for key in ("latent_coords", "stage0_coords", "stage1_coords") if key in self.arrays]
        grids = [grid(self[key], fine_resolution >> (len(levels) - 1 - i)) for i, key in enumerate(levels)]
        return tuple(Structure.between(a, b) for a, b in itertools.pairwise(grids))


def grid(coords: Tensor, resolution: int) -> VoxelGrid:
    return VoxelGrid.build(coords, resolution=resolution, batch_size=2)[0]


def sorted_rows(coords: Tensor, rows: Tensor) -> Tensor:
    """Rows that belong to cells in the original's order, in the order of a grid of these cells."""
    return SparseTensor.build(coords, rows, resolution=64, batch_size=2).feats
