"""Inputs for `voxgen.ops.covered_cells`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.covered_cells import covered_cells

from . import Case
from .voxelize import grid_of, surfaces

DTYPES = (torch.float32, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """The surfaces of `voxelize`, a triangle inside one cell, and faces without area among others."""
    small = TriMesh(torch.tensor([[0.01, 0.01, 0.01], [0.02, 0.01, 0.02], [0.01, 0.02, 0.03]]), torch.tensor([[0, 1, 2]]))
    bent = TriMesh(torch.tensor([[-0.3, 0.1, 0.2], [0.4, -0.2, 0.1], [0.0, 0.3, -0.4]]), torch.tensor([[0, 0, 1], [0, 1, 2], [2, 2, 2]]))
    made = []
    for name, mesh, resolution in [*surfaces(), ("inside-one-cell", small, 8), ("faces-without-area", bent, 40)]:
        run = partial(_run, resolution=resolution)
        made.append(Case(name, {"vertices": mesh.vertices.to(dtype), "faces": mesh.faces}, run))
    return made


def _run(backend: str, inputs: Mapping[str, Tensor], *, resolution: int | tuple[int, int, int]) -> Mapping[str, Tensor]:
    grid = grid_of(resolution)
    return {"cells": covered_cells(inputs["vertices"], inputs["faces"], **grid, backend=backend)}  # pyright: ignore[reportArgumentType]
