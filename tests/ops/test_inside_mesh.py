"""Inside or outside by winding number: exact against the sum of solid angles, for closed and open meshes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.errors import RangeError
from voxgen.io import load_mesh
from voxgen.ops.distance_band import distance_band
from voxgen.ops.inside_mesh import inside_mesh, winding_numbers
from voxgen.ops.inside_mesh._border import border
from voxgen.ops.inside_mesh._reference import solid_angles
from voxgen.ops.voxelize._prepare import prepare
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid

UNIT: Any = (-0.5, -0.5, -0.5)


def inside(mesh: TriMesh, cells: Tensor, resolution: int) -> Tensor:
    return inside_mesh(mesh.vertices, mesh.faces, cells, origin=UNIT, voxel_size=1 / resolution, resolution=resolution)


def winding(mesh: TriMesh, points: Tensor) -> Tensor:
    corners = mesh.vertices.double()[mesh.faces.long()]
    return torch.cat([solid_angles(corners - p[:, None, None]).sum(1) for p in points.split(64)]) / (4 * math.pi)


def test_solid_angle_of_an_octant() -> None:
    assert float(solid_angles(torch.eye(3, dtype=torch.float64))) == pytest.approx(math.pi / 2)


def test_ball_with_a_cavity() -> None:
    inner = shapes.sphere(0.2, 3)
    mesh = shapes.merged(shapes.sphere(0.4, 3), inner.replace(faces=inner.faces.flip(1)))
    grid = full_grid(32)
    radius = ((grid.cells + 0.5) / 32 - 0.5).norm(dim=1)
    found = inside(mesh, grid.cells, 32)
    clear = ((radius - 0.4).abs() > 0.01) & ((radius - 0.2).abs() > 0.01)
    assert torch.equal(found[clear], ((radius < 0.4) & (radius > 0.2))[clear])


def test_overlapping_bodies_are_joined_and_reversed_ones_are_empty() -> None:
    grid = full_grid(20)
    one, other = shapes.sphere(0.3, 2, (-0.1, 0, 0)), shapes.sphere(0.3, 2, (0.1, 0, 0))
    both = inside(shapes.merged(one, other), grid.cells, 20)
    assert torch.equal(both, inside(one, grid.cells, 20) | inside(other, grid.cells, 20))
    assert not bool(inside(one.replace(faces=one.faces.flip(1)), grid.cells, 20).any())


@pytest.mark.parametrize("name", ["spot/spot.obj", "bunny.obj", "suzanne.obj"])
def test_real_meshes_against_solid_angles(data: Path, name: str) -> None:
    mesh = load_mesh(data / name)
    low, high = mesh.bounds()
    vertices = ((mesh.vertices.double() - (low + high) / 2) * (0.95 / float((high - low).max()))).float()
    mesh = TriMesh(vertices, mesh.faces)
    near = distance_band(vertices, mesh.faces, origin=UNIT, voxel_size=1 / 64, resolution=64, band=4.0)
    found = inside(mesh, near.cells, 64)
    count = 60 if name == "bunny.obj" else 800
    pick = torch.randperm(len(near.cells), generator=torch.Generator().manual_seed(0))[:count]
    exact = winding(mesh, (near.cells[pick].double() + 0.5) / 64 - 0.5)
    clear = (exact - 0.5).abs() > 1e-3
    assert int(clear.sum()) > 0.9 * count
    assert torch.equal(found[pick][clear], (exact > 0.5)[clear])


def test_hole_is_closed_by_the_surface_of_one_half() -> None:
    bowl = shapes.bowl(0.4, 1.2)
    grid = full_grid(24)
    points = (grid.cells.double() + 0.5) / 24 - 0.5
    found, exact = inside(bowl, grid.cells, 24), winding(bowl, points)
    clear = (exact - 0.5).abs() > 1e-6
    assert torch.equal(found[clear], (exact > 0.5)[clear])
    share = float(found.float().mean()) * 24**3
    assert 0 < share < float((points.norm(dim=1) < 0.4).sum())


def test_border_counts_welded_edges() -> None:
    def edges(mesh: TriMesh) -> float:
        return float(border(prepare("test", mesh.vertices, mesh.faces, UNIT, 1 / 8, 8, None)).excess.sum())

    assert edges(shapes.box()) == 0
    assert edges(shapes.split_apart(shapes.box())) == 0
    box = shapes.box()
    assert edges(box.replace(faces=box.faces[1:])) == 3
    assert edges(box.replace(faces=torch.cat((box.faces, box.faces[:1])))) == 3
    assert edges(shapes.bowl(around=48)) == 48


def test_soup_with_a_long_border_is_approximated(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = shapes.sphere(0.4, 4)
    apart = shapes.split_apart(ball)  # 5120 triangles that do not touch
    center = apart.vertices.view(-1, 3, 3).mean(1, keepdim=True)
    soup = apart.replace(vertices=(center + 0.999 * (apart.vertices.view(-1, 3, 3) - center)).reshape(-1, 3))
    cells = full_grid(24).cells[::5].contiguous()
    radius = ((cells + 0.5) / 24 - 0.5).norm(dim=1)
    clear = (radius - 0.4).abs() > 0.02
    assert torch.equal(inside(soup, cells, 24)[clear], (radius < 0.4)[clear])
    box: Any = {"origin": UNIT, "voxel_size": 1 / 24, "resolution": 24}
    bowl = shapes.bowl(rings=8, around=24)
    exact = winding_numbers(bowl.vertices, bowl.faces, cells, **box)
    monkeypatch.setattr("voxgen.ops.inside_mesh._numba.MANY", 1)
    near = winding_numbers(bowl.vertices, bowl.faces, cells, **box)
    assert 0 < float((near - exact).abs().max()) < 0.02


def test_bad_input() -> None:
    mesh = shapes.box()
    cells = torch.tensor([[1, 1, 1], [0, 0, 0]], dtype=torch.int32)
    with pytest.raises(RangeError, match="lexicographic"):
        inside(mesh, cells, 8)
    with pytest.raises(RangeError, match=r"must lie in \[0, 8\)"):
        inside(mesh, cells + 7, 8)
    assert len(inside(mesh, cells[:0], 8)) == 0
    assert len(inside(shapes.bowl(), cells[:0], 8)) == 0
