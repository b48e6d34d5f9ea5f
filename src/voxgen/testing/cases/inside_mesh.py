"""Cases of `voxgen.ops.inside_mesh`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.inside_mesh import inside_mesh, winding_numbers
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid

from . import Case

DTYPES = (torch.float32, torch.float64)


def surfaces() -> list[tuple[str, TriMesh, int]]:
    """Closed and open meshes inside [-0.5, 0.5]³, with the resolution of the grid."""
    hollow = shapes.merged(shapes.sphere(0.45, 2), shapes.sphere(0.25, 2).replace(faces=shapes.sphere(0.25, 2).faces.flip(1)))
    return [
        ("closed", shapes.rotated(shapes.torus(around=24, across=12)), 22),
        ("cavity", hollow, 20),
        ("overlapping bodies", shapes.merged(shapes.rotated(shapes.box()), shapes.sphere(0.35, 2, (0.05, 0.02, 0.01))), 18),
        ("vertices and edges on columns", shapes.box((-0.25, -0.25, -0.21), (0.25, 0.25, 0.21)), 18),
        ("corners of cells on centres", shapes.split_apart(shapes.box((-0.3125, -0.3125, -0.3), (0.3125, 0.3125, 0.3))), 16),
        ("bowl", shapes.rotated(shapes.bowl(rings=6, around=16)), 24),
        ("bowl, opening along a column", shapes.bowl(rings=6, around=16), 32),
        ("one triangle", TriMesh(torch.tensor([[-0.4, -0.3, 0.1], [0.37, -0.21, -0.1], [0.0, 0.4, 0.3]]), torch.tensor([[0, 1, 2]])), 16),
    ]


def cases(dtype: torch.dtype) -> list[Case]:
    return [_case(name, mesh, resolution, dtype) for name, mesh, resolution in surfaces()]


def _case(name: str, mesh: TriMesh, resolution: int, dtype: torch.dtype) -> Case:
    cells = full_grid(resolution).cells[::7].contiguous()

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        box = {"origin": (-0.5, -0.5, -0.5), "voxel_size": 1 / resolution, "resolution": resolution}
        tensors = inputs["vertices"], inputs["faces"], inputs["cells"]
        return {
            "inside": inside_mesh(*tensors, **box, backend=backend),
            "winding": winding_numbers(*tensors, **box, backend=backend),
        }

    # sums of thousands of solid angles in another order: measured 1e-12
    tolerance = {"winding": 1e-9}
    return Case(name, {"vertices": mesh.vertices.to(dtype), "faces": mesh.faces, "cells": cells}, run, tolerance=tolerance)
