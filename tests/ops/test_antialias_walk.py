"""Outlines beyond the triangles that pixels see: fine meshes have the gradient that coarse ones have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.errors import RangeError
from voxgen.ops.antialias import antialias
from voxgen.ops.rasterize import rasterize
from voxgen.testing.shapes import bowl, box, merged, rotated, sphere, torus

SIZE = 128
VIEW = Camera.look_at(torch.tensor([[0.3, 0.2, 2.0]]), width=SIZE, height=SIZE, orthographic_height=1.0)


def mask_of(vertices: Tensor, faces: Tensor, walk: int, camera: Camera = VIEW, **options) -> Tensor:
    matrix = camera.clip_matrices().to(vertices)
    positions = vertices @ matrix[:, :, :3].transpose(1, 2) + matrix[:, None, :, 3]
    raster = rasterize(positions, faces, camera.height, camera.width)
    seen = (raster.face_id >= 0).to(vertices)[..., None]
    return antialias(seen, raster, positions, faces, walk=walk, **options)[..., 0]


def growth(mesh: TriMesh, walk: int) -> float:
    """How the mask's area grows with the mesh, as a share of what it must be: twice the area."""
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    mask = mask_of(mesh.vertices.double() * scale, mesh.faces, walk)
    (slope,) = torch.autograd.grad(mask.sum(), scale)
    return float(slope) / (2 * float(mask.detach().sum()))


@pytest.mark.parametrize("subdivisions", [2, 3, 4])
def test_balls_of_any_fineness_grow_as_they_must(subdivisions: int) -> None:
    ball = sphere(0.4, subdivisions)
    # one percent: pixels at the joints of two edges, and the few pairs whose outline is not steep in their direction
    assert growth(ball, 16) == pytest.approx(1, abs=0.01)
    assert growth(ball, 0) < 0.7


def test_area_is_that_of_a_much_finer_picture() -> None:
    ball = rotated(sphere(0.4, 4))
    fine = Camera.look_at(torch.tensor([[0.3, 0.2, 2.0]]), width=12 * SIZE, height=12 * SIZE, orthographic_height=1.0)
    exact = mask_of(ball.vertices, ball.faces, 0, fine).reshape(1, SIZE, 12, SIZE, 12).mean((2, 4))
    hard = (mask_of(ball.vertices, ball.faces, 0) > 0.5).float()
    walked = mask_of(ball.vertices, ball.faces, 16)
    error, before = (walked - exact).abs(), (hard - exact).abs()
    assert float(walked.min()) >= 0
    assert float(walked.max()) <= 1
    # what is left: pairs take an outline as straight beyond its crossing, and near 45° two pairs share one pixel
    assert float(error.mean()) < 0.15 * float(before.mean())
    assert float(error.max()) < 0.35


def test_gradients_against_finite_differences() -> None:
    mesh = rotated(torus(around=40, across=24))
    weight = torch.randn(1, SIZE, SIZE, dtype=torch.float64)
    start, step = mesh.vertices.double(), 1e-8  # far below the distance of pixel centres to edges
    vertices = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((mask_of(vertices, mesh.faces, 16) * weight).sum(), vertices)
    direction = torch.randn_like(start)
    masks = [mask_of(start + sign * step * direction, mesh.faces, 16) for sign in (1, -1)]
    slope = float(((masks[0] - masks[1]) * weight).sum() / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_where_the_published_rule_finds_everything_nothing_is_added() -> None:
    corners = rotated(box()).vertices[:3]
    assert torch.equal(mask_of(corners, torch.tensor([[0, 1, 2]]), 16), mask_of(corners, torch.tensor([[0, 1, 2]]), 0))
    mesh = rotated(box())  # triangles meet at its corners, where a pixel may see one and the outline be the next one's
    changed = mask_of(mesh.vertices, mesh.faces, 16) != mask_of(mesh.vertices, mesh.faces, 0)
    assert 0 < int(changed.sum()) < 20


@pytest.mark.parametrize("mesh", [rotated(bowl()), merged(rotated(sphere(0.2, 4)), sphere(0.1, 4, (0.3, 0.3, 0.0)))])
def test_open_and_several_surfaces(mesh: TriMesh) -> None:
    assert growth(mesh, 16) == pytest.approx(1, abs=0.03)


def test_views_batches_engines_and_windows_agree() -> None:
    ball = rotated(sphere(0.3, 3))
    eyes = torch.tensor([[0.0, 0.3, 2.0], [2.0, 0.1, 0.4]])
    both = Camera.look_at(eyes, width=48, height=40)
    masks = mask_of(ball.vertices, ball.faces, 8, both)
    for i in range(2):
        assert torch.equal(masks[i], mask_of(ball.vertices, ball.faces, 8, both[i])[0])
    assert torch.allclose(masks, mask_of(ball.vertices, ball.faces, 8, both, backend="reference"), atol=1e-6)
    matrix = both[0].clip_matrices()[0]
    positions = ball.vertices @ matrix[:, :3].T + matrix[:, 3]
    raster = rasterize(positions, ball.faces, 40, 48, window=(4, 8, 30, 32))
    part = antialias((raster.face_id >= 0).float()[..., None], raster, positions, ball.faces, walk=8)[0, ..., 0]
    assert torch.equal(part[1:-1, 1:-1], masks[0, 5:33, 9:39])  # but for pairs across the window's border


def test_nothing_to_walk_on() -> None:
    faces = torch.zeros(0, 3, dtype=torch.int32)
    assert mask_of(torch.zeros(3, 3), faces, 8).sum() == 0
    wall = torch.tensor([[-9.0, -9, 0], [9, -9, 0], [0, 18, 0]])
    assert bool((mask_of(wall, torch.tensor([[0, 1, 2]]), 8) == 1).all())
    with pytest.raises(RangeError, match="walk must be from 0 to 64"):
        mask_of(wall, torch.tensor([[0, 1, 2]]), -1)
