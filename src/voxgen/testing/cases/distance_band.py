"""Cases of `voxgen.ops.distance_band`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.aliases import Int3
from voxgen.ops.distance_band import distance_band
from voxgen.testing import shapes

from . import Case

DTYPES = (torch.float32, torch.float64)


def surfaces() -> list[tuple[str, TriMesh, int | Int3, float]]:
    """Meshes inside [-0.5, 0.5]³: name, mesh, resolution along x (and cells along the axes), band."""
    one = TriMesh(torch.tensor([[-0.4, -0.3, 0.1], [0.37, -0.21, -0.13], [0.02, 0.43, 0.31]]), torch.tensor([[0, 1, 2]]))
    slivers = shapes.merged(one, TriMesh(torch.tensor([[-0.4, 0.4, 0.4], [0.4, 0.4, 0.41], [0.0, 0.4, 0.405]]), torch.tensor([[0, 1, 2]])))
    return [
        ("one triangle", one, 20, 3.0),
        ("on planes of the grid", shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25)), 16, 2.5),
        ("many triangles", shapes.rotated(shapes.torus(around=14, across=8)), 15, 1.5),
        ("open sheet", shapes.wavy_sheet(7), (17, 19, 18), 4.0),
        ("degenerate triangles", slivers, 12, 2.0),
        ("band wider than the grid", shapes.rotated(shapes.box()), 9, 40.0),
        ("thin band", shapes.sphere(0.4, 1), 18, 0.01),
    ]


def cases(dtype: torch.dtype) -> list[Case]:
    return [_case(name, mesh, resolution, band, dtype) for name, mesh, resolution, band in surfaces()]


def _case(name: str, mesh: TriMesh, resolution: int | Int3, band: float, dtype: torch.dtype) -> Case:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        size = 1 / (resolution if isinstance(resolution, int) else min(resolution))
        origin = (-0.5, -0.5, -0.5)
        found = distance_band(
            inputs["vertices"], inputs["faces"], origin=origin, voxel_size=size, resolution=resolution, band=band, backend=backend
        )
        return found._asdict()

    return Case(name, {"vertices": mesh.vertices.to(dtype), "faces": mesh.faces}, run)
