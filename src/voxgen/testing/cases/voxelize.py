"""Inputs for `voxgen.ops.voxelize`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.voxelize import triangle_cells
from voxgen.testing import shapes

from . import Case

DTYPES = (torch.float32, torch.float64)


def surfaces() -> list[tuple[str, TriMesh, int | tuple[int, int, int]]]:
    """Meshes with the grid to convert them in: name, mesh inside [-0.5, 0.5]³, resolution."""
    turned_box = shapes.rotated(shapes.box())
    one = TriMesh(torch.tensor([[-0.4, -0.3, 0.1], [0.37, -0.21, -0.13], [0.02, 0.43, 0.31]]), torch.tensor([[0, 1, 2]]))
    two = shapes.merged(shapes.rotated(shapes.box()), shapes.sphere(0.3, 2, (0.05, 0.02, 0.01)))
    full = shapes.box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
    return [
        ("one-triangle", one, 24),
        ("large-triangles", turned_box, 50),
        ("small-triangles", shapes.rotated(shapes.torus()), 20),
        ("open-sheet", shapes.wavy_sheet(), 33),
        ("crossing-parts", two, 17),
        ("uneven-grid", shapes.rotated(shapes.sphere(0.4, 2)), (19, 35, 64)),
        ("on-grid-planes", shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25)), 16),
        ("on-the-border", full, 8),
        ("one-cell-thick", full, (1, 5, 40)),
    ]


def grid_of(resolution: int | tuple[int, int, int]) -> dict[str, object]:
    """The box [-0.5, 0.5]³ as arguments of the mesh-to-grid ops."""
    cells = (resolution,) * 3 if isinstance(resolution, int) else resolution
    return {"origin": (-0.5, -0.5, -0.5), "voxel_size": tuple(1 / n for n in cells), "resolution": cells}


def cases(dtype: torch.dtype) -> list[Case]:
    """Every surface in both modes; float64 vertices are rounded by the op."""
    made = []
    for name, mesh, resolution in surfaces():
        for compat in (None, "trellis2"):
            run = partial(_run, resolution=resolution, compat=compat)
            inputs = {"vertices": mesh.vertices.to(dtype), "faces": mesh.faces}
            made.append(Case(f"{name}-{compat}", inputs, run))
    return made


def _run(backend: str, inputs: Mapping[str, Tensor], *, resolution: int | tuple[int, int, int], compat: str | None) -> Mapping[str, Tensor]:
    grid = grid_of(resolution)
    return triangle_cells(inputs["vertices"], inputs["faces"], **grid, compat=compat, backend=backend)._asdict()  # pyright: ignore[reportArgumentType]
