"""Inputs for `voxgen.ops.surface_cells`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from voxgen.ops.surface_cells import surface_cells, surface_moments

from . import Case
from .voxelize import grid_of, surfaces

DTYPES = (torch.float32, torch.float64)

# Moments come rounded to float32; spread is a root of a difference, whose last digits a flat cell loses (1.2e-8 in the variance).
LOOSE = {"centroid": 1e-6, "normal_outer": 1e-6, "area": 1e-6, "spread": 1e-4}


def cases(dtype: torch.dtype) -> list[Case]:
    """Every surface of the voxeliser, cells and moments."""
    made = []
    for name, mesh, resolution in surfaces():
        inputs = {"vertices": mesh.vertices.to(dtype), "faces": mesh.faces}
        made.append(Case(f"{name}-cells", inputs, partial(_cells, resolution=resolution)))
        made.append(Case(f"{name}-moments", inputs, partial(_moments, resolution=resolution), tolerance=LOOSE))
    return made


def _cells(backend: str, inputs: Mapping[str, Tensor], *, resolution: int | tuple[int, int, int]) -> Mapping[str, Tensor]:
    return {"cells": surface_cells(inputs["vertices"], inputs["faces"], **grid_of(resolution), backend=backend)}  # pyright: ignore[reportArgumentType]


def _moments(backend: str, inputs: Mapping[str, Tensor], *, resolution: int | tuple[int, int, int]) -> Mapping[str, Tensor]:
    found = surface_moments(inputs["vertices"], inputs["faces"], **grid_of(resolution), backend=backend)  # pyright: ignore[reportArgumentType]
    return {name: getattr(found, name) for name in ("cells", "area", "centroid", "normal_outer", "spread")}
