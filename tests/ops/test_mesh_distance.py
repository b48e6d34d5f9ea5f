"""Distances of any points to a mesh: known solids, signs, gradients, bad input. Engines agree in tests/parity."""

from __future__ import annotations

import pytest
import torch

from voxgen.core.errors import DtypeError, MeshError, RangeError
from voxgen.ops.mesh_distance import mesh_distance
from voxgen.testing import shapes


def random_points(count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("backend", ["libigl", "reference"])
def test_box_has_the_distance_of_a_box(backend: str) -> None:
    cube, points = shapes.box(), random_points(500)
    found = mesh_distance(points, cube.vertices.double(), cube.faces, signed=True, backend=backend)
    beyond = points.abs() - 0.3
    exact = beyond.clamp_min(0).norm(dim=1) + beyond.amax(1).clamp_max(0)
    torch.testing.assert_close(found.distance, exact, atol=1e-7, rtol=0)  # 0.3 is rounded to float32 in the mesh
    torch.testing.assert_close((points - found.closest).norm(dim=1), found.distance.abs())
    unsigned = mesh_distance(points, cube.vertices.double(), cube.faces, backend=backend)
    torch.testing.assert_close(unsigned.distance, exact.abs(), atol=1e-7, rtol=0)


def test_gradients() -> None:
    mesh = shapes.rotated(shapes.sphere(0.5, 1))
    points, vertices = random_points(20).requires_grad_(), mesh.vertices.double().requires_grad_()

    def distance(p: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return mesh_distance(p, v, mesh.faces, signed=True).distance

    assert torch.autograd.gradcheck(distance, (points, vertices))
    (slope,) = torch.autograd.grad(distance(points, vertices).sum(), points)
    torch.testing.assert_close(slope.norm(dim=1), torch.ones(20, dtype=torch.float64))


def test_points_on_the_surface_have_distance_0_and_no_nan() -> None:
    cube = shapes.box()
    points = cube.vertices.clone().requires_grad_()
    found = mesh_distance(points, cube.vertices, cube.faces)
    assert float(found.distance.detach().abs().max()) == 0
    (slope,) = torch.autograd.grad(found.distance.sum(), points)
    assert bool(torch.isfinite(slope).all())


def test_bad_input() -> None:
    cube, points = shapes.box(), random_points(3).float()
    with pytest.raises(RangeError, match="points must be finite"):
        mesh_distance(points * torch.inf, cube.vertices, cube.faces)
    with pytest.raises(MeshError, match="at least one face"):
        mesh_distance(points, cube.vertices, cube.faces[:0])
    with pytest.raises(DtypeError, match="one dtype"):
        mesh_distance(points, cube.vertices.double(), cube.faces)
