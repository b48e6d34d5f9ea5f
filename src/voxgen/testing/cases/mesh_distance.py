"""Cases of `voxgen.ops.mesh_distance`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.mesh_distance import mesh_distance
from voxgen.testing import shapes

from . import Case

DTYPES = (torch.float32, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    thread = TriMesh(torch.tensor([[-0.4, -0.3, 0.1], [0.4, 0.3, 0.2], [0.4, 0.3, 0.2]]), torch.tensor([[0, 1, 2]]))
    return [
        _case("torus", shapes.rotated(shapes.torus(around=16, across=8)), 300, dtype),
        _case("signed", shapes.rotated(shapes.box()), 300, dtype, signed=True),
        _case("open sheet", shapes.wavy_sheet(6), 200, dtype),
        _case("degenerate triangle", thread, 100, dtype),
        _case("no points", shapes.box(), 0, dtype),
    ]


def _case(name: str, mesh: TriMesh, count: int, dtype: torch.dtype, signed: bool = False) -> Case:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.4 - 0.7

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = mesh_distance(inputs["points"], inputs["vertices"], inputs["faces"], signed=signed, backend=backend)
        return {"distance": found.distance, "closest": found.closest}  # the face is not unique at edges

    inputs = {"points": points.to(dtype), "vertices": mesh.vertices.to(dtype), "faces": mesh.faces}
    # at an edge either face may be found, which rounds otherwise and gives the edge's ends their gradient by way of another sum
    tolerance = {"distance": 1e-5, "closest": 1e-5, "grad points": 1e-4, "grad vertices": 1e-4} if dtype == torch.float32 else {}
    return Case(name, inputs, run, ("points", "vertices") if count else (), tolerance=tolerance)
