"""Inputs for `voxgen.ops.dual_grid`: the surfaces of `voxelize`, with all weights, and unwelded ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.dual_grid import dual_grid
from voxgen.testing import shapes

from . import Case
from .voxelize import grid_of, surfaces

DTYPES = (torch.float32,)


def unwelded(mesh: TriMesh) -> TriMesh:
    """The same triangles, each with three vertices of its own."""
    return TriMesh(mesh.corners().reshape(-1, 3), torch.arange(3 * mesh.num_faces).reshape(-1, 3))


def cases(dtype: torch.dtype) -> list[Case]:
    """Every surface in both modes, then other weights, every edge a boundary, and no regulariser."""
    del dtype
    made = [_case(f"{name}-{compat}", mesh, grid, compat=compat) for name, mesh, grid in surfaces() for compat in (None, "trellis2")]
    sheet, ball = shapes.wavy_sheet(), unwelded(shapes.rotated(shapes.sphere(0.4, 1)))
    made += [
        _case("heavy-faces", sheet, 20, face_weight=5.0),
        _case("planes-only", sheet, 20, face_weight=0.0, boundary_weight=0.0),
        _case("api-defaults", sheet, 20, boundary_weight=1.0, regularization=0.1),
        _case("unwelded-None", ball, 20),
        _case("unwelded-trellis2", ball, 20, compat="trellis2"),
        _case("beyond-the-box", sheet, 20, compat="trellis2", origin=(-0.3, -0.37, -0.05)),
        _case("no-regularizer", ball, 20, tolerance=1e-3, regularization=0.0),
        _case("below-a-brick", shapes.rotated(shapes.box()), 3),
    ]
    return made


def _case(name: str, mesh: TriMesh, resolution: int | tuple[int, int, int], tolerance: float = 1e-5, **options: object) -> Case:
    # Without a regulariser, flat directions hang on differences of 1e-15 in the objective, which a pull of 1e-9 turns to
    # 1e-3 of a voxel (measured: 2.3e-4).
    run = partial(_run, grid=grid_of(resolution), options=options)
    return Case(name, {"vertices": mesh.vertices, "faces": mesh.faces}, run, tolerance={"dual": tolerance})


def _run(backend: str, inputs: Mapping[str, Tensor], *, grid: dict[str, object], options: dict[str, object]) -> Mapping[str, Tensor]:
    arguments = {**grid, **options, "backend": backend}
    return dual_grid(inputs["vertices"], inputs["faces"], **arguments)._asdict()  # pyright: ignore[reportArgumentType]
