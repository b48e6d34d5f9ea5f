"""Goldens of the structure networks, and weights made from the names of tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.models import build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.structure import StructureFlow, StructureVAE

GOLDEN = Path(__file__).parents[1] / "golden"
N = TypeVar("N", StructureFlow, StructureVAE)

TOLERANCE = 1e-4
"""Of the largest value, as the goldens state for float32."""


def trellis(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return json.loads((GOLDEN / f"{name}.json").read_text()), values


def weights(tensors: Sequence[tuple[str, Sequence[int]]], seed: int, scales: dict[str, float] | None = None) -> dict[str, Tensor]:
    state = {name: torch.from_numpy(recipe.weight(name, tuple(shape), seed)) for name, shape in tensors}
    for ending, factor in (scales or {}).items():
        state = {name: value * factor if name.endswith(ending) else value for name, value in state.items()}
    return state


def original(network: str, name: str, kind: type[N]) -> tuple[Golden, N]:
    """A golden of Direct3D-S2, and the network that it was made with."""
    golden = Golden.read(name)
    module = build(network, **golden.configuration)
    assert isinstance(module, kind)
    load_direct3d_s2(module, golden.weights())
    return golden, module
