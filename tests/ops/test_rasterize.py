"""Rasterisation against what is known without it: areas, ray casting, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from projected import project
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.ops.rasterize import RasterOutput, interpolate, rasterize, screen_derivatives
from voxgen.testing.shapes import quad_faces, rotated, sphere, torus

BACKENDS = ("numba", "torch", "reference")


def cast_rays(camera: Camera, mesh: TriMesh) -> tuple[Tensor, Tensor]:
    """Face hit first within [near, far] by the ray through each pixel's centre, and its view depth; every ray against every face."""
    row, column = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    k = camera.intrinsics[0].double()
    x, y = (column.double() - k[0, 2]) / k[0, 0], (row.double() - k[1, 2]) / k[1, 1]
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    origin = torch.stack((x, y, zero), -1) if camera.orthographic else torch.zeros_like(torch.stack((x, y, zero), -1))
    direction = torch.stack((zero, zero, one), -1) if camera.orthographic else torch.stack((x, y, one), -1)
    corners = camera.to_camera(mesh.vertices.double())[0][mesh.faces.long()]
    a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    o, d = origin.reshape(-1, 1, 3), direction.reshape(-1, 1, 3)
    p = torch.linalg.cross(d.expand(-1, len(a), 3), e2.expand(len(d), -1, 3))
    q = torch.linalg.cross((o - a).expand(-1, -1, 3), e1.expand(len(d), -1, 3))
    det = (e1 * p).sum(-1)
    u, v, t = ((o - a) * p).sum(-1) / det, (d * q).sum(-1) / det, (e2 * q).sum(-1) / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= camera.near) & (t <= camera.far)
    depth, face = torch.where(hit, t, torch.inf).min(1)
    shape = (camera.height, camera.width)
    return torch.where(depth.isfinite(), face, -1).reshape(shape), depth.reshape(shape)


def view_depth(camera: Camera, raster: RasterOutput) -> Tensor:
    """z / w → z in camera space."""
    n, f, d = camera.near, camera.far, raster.depth
    return (d * (f - n) + f + n) / 2 if camera.orthographic else 2 * f * n / (f + n - d * (f - n))


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_pixels(backend: str) -> None:
    # The upper left half of the image; the hypotenuse passes through pixel centres and is a right side, so they are not covered.
    corners = torch.tensor([[-1.0, -1, 0.5, 1], [1, -1, 0.5, 1], [-1, 1, 0.5, 1]])
    raster = rasterize(corners, torch.tensor([[0, 1, 2]]), 4, 4, backend=backend)
    expected = torch.tensor([[0, 0, 0, -1], [0, 0, -1, -1], [0, -1, -1, -1], [-1, -1, -1, -1]])
    assert torch.equal(raster.face_id[0], expected.int())
    assert raster.barycentrics[0, 0, 1].tolist() == pytest.approx([0.5, 0.375, 0.125])
    assert torch.equal(raster.depth[0], torch.where(expected == 0, 0.5, 1.0))
    assert raster.face_id.dtype == torch.int32
    assert raster.barycentrics.dtype == raster.depth.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_clip_y_points_down(backend: str) -> None:
    corners = torch.tensor([[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [0.0, -0.1, 0, 1]])
    covered = rasterize(corners, torch.tensor([[0, 1, 2]]), 8, 8, backend=backend).face_id[0] >= 0
    assert covered[:4].any()
    assert not covered[4:].any()
    generic = torch.tensor([[-0.91, -0.73, 0, 1], [0.87, -0.49, 0, 1], [0.13, 0.77, 0, 1]])
    upright = rasterize(generic, torch.tensor([[0, 1, 2]]), 33, 20, backend=backend).face_id
    flipped = rasterize(generic * torch.tensor([1, -1, 1, 1]), torch.tensor([[0, 1, 2]]), 33, 20, backend=backend).face_id
    assert torch.equal(upright.flip(1), flipped)


def lattice(n: int, generator: torch.Generator, jitter: float, step: float) -> tuple[Tensor, Tensor]:
    """A triangulated square somewhat larger than the image, moved vertices snapped to `step`, random w, faces in random order and winding.

    Vertices move by less than a quarter of a cell, so that no triangle folds over its neighbour.
    """
    t = torch.linspace(-1.1, 1.1, n + 1, dtype=torch.float64)
    y, x = torch.meshgrid(t, t, indexing="ij")
    xy = torch.stack((x, y), -1).reshape(-1, 2)
    inner = (xy.abs() < 1.05).all(1, keepdim=True)
    xy = xy + inner * (torch.rand(xy.shape, generator=generator, dtype=torch.float64) - 0.5) * jitter * (2.2 / n)
    if step:
        xy = (xy / step).round() * step
    w = 2.0 ** torch.randint(-2, 3, (len(xy), 1), generator=generator).double()
    faces = quad_faces(n + 1, n + 1)[torch.randperm(2 * n * n, generator=generator)]
    faces = torch.where(torch.rand(len(faces), 1, generator=generator) < 0.5, faces, faces.flip(1))
    return torch.cat((xy * w, torch.zeros_like(w), w), 1), faces


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "jitter", "step"), [(7, 0.45, 0.0), (13, 0.0, 0.0), (9, 0.35, 1 / 24), (14, 0.25, 1 / 48), (8, 0.0, 1 / 12)])
def test_shared_edges_are_covered_exactly_once(backend: str, n: int, jitter: float, step: float) -> None:
    generator = torch.Generator().manual_seed(n)
    # steps of 1/24 and 1/48 at 24 pixels put many vertices and edges on pixel centres, in float64 up to rounding
    for dtype in (torch.float32, torch.float64):
        positions, faces = lattice(n, generator, jitter, step)
        positions = positions.to(dtype)
        first = rasterize(positions, faces, 24, 24, backend=backend)
        assert bool((first.face_id >= 0).all()), "a hole"
        second = rasterize(positions, faces, 24, 24, behind=first.face_id, backend=backend)
        assert bool((second.face_id < 0).all()), "a pixel drawn twice"


@pytest.mark.parametrize("backend", BACKENDS)
def test_fan_around_a_pixel_centre(backend: str) -> None:
    angle = torch.arange(7, dtype=torch.float64) * (2 * math.pi / 7) + 0.1
    centre = torch.tensor([[-0.25, 0.25]], dtype=torch.float64)  # of pixel (2, 1) at 4 × 4
    xy = torch.cat((centre, centre + 3 * torch.stack((angle.cos(), angle.sin()), 1)))
    positions = torch.cat((xy, torch.zeros(8, 1).double(), torch.ones(8, 1).double()), 1)
    faces = torch.tensor([[0, 1 + i, 1 + (i + 1) % 7] for i in range(7)])
    first = rasterize(positions, faces, 4, 4, backend=backend).face_id
    assert int(first.min()) >= 0
    assert int(rasterize(positions, faces, 4, 4, behind=first, backend=backend).face_id.max()) == -1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_equals_ray_casting(backend: str, inside: bool, parallel: bool) -> None:
    mesh = rotated(torus(around=24, across=10))
    eye = torch.tensor([[0.31, 0.02, 0.03] if inside else [0.8, 0.9, 1.0]], dtype=torch.float64)
    camera = Camera.look_at(
        eye,
        width=41,
        height=36,
        fov=80.0 if inside else 40.0,
        near=0.03 if inside else 0.9,
        far=1.6,
        orthographic_height=1.1 if parallel else None,
    )
    positions = project(camera, mesh.vertices)
    if inside and not parallel:
        assert bool((positions[..., 3] <= 0).any())
    raster = rasterize(positions, mesh.faces, 36, 41, backend=backend)
    face, depth = cast_rays(camera, mesh)
    assert torch.equal(raster.face_id[0].long(), face)
    hit = face >= 0
    assert hit.double().mean() > 0.1
    assert torch.allclose(view_depth(camera, raster)[0][hit], depth[hit], rtol=1e-9, atol=0)
    points = interpolate(camera.to_camera(mesh.vertices.double())[0], mesh.faces, raster)[0][hit]
    k = camera.intrinsics[0].double()
    scale = torch.ones_like(points[:, 2]) if parallel else points[:, 2]
    row, column = hit.nonzero(as_tuple=True)
    assert torch.allclose(k[0, 0] * points[:, 0] / scale + k[0, 2], column.double() + 0.5, atol=1e-9)
    assert torch.allclose(k[1, 1] * points[:, 1] / scale + k[1, 2], row.double() + 0.5, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_triangle_through_the_eye_equals_a_copy_cut_at_the_near_plane(backend: str) -> None:
    camera = Camera.look_at(
        torch.tensor([[0.0, 0.0, 0.0]]).double(), target=(0.0, 0.0, -1.0), fov=70.0, width=48, height=40, near=0.1, far=10.0
    )
    floor = torch.tensor([[-4.0, -0.3, -6.0], [5.0, -0.3, -5.0], [0.3, -0.3, 7.0]], dtype=torch.float64)  # the last lies behind the eye
    whole = rasterize(project(camera, floor), torch.tensor([[0, 1, 2]]), 40, 48, backend=backend)
    t = (-0.05 - floor[:2, 2:]) / (floor[2, 2] - floor[:2, 2:])
    cut = torch.cat((floor[:2], floor[:2] + t * (floor[2] - floor[:2])))  # at z = -0.05, nearer than the near plane
    parts = rasterize(project(camera, cut), torch.tensor([[0, 1, 3], [0, 3, 2]]), 40, 48, backend=backend)
    assert torch.equal(whole.face_id >= 0, parts.face_id >= 0)
    assert 0.2 < (whole.face_id >= 0).double().mean() < 0.6
    assert torch.allclose(whole.depth, parts.depth, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vertices_on_the_plane_of_the_eye(backend: str) -> None:
    # w = 0: a wall that starts beside the eye and runs forward for ever; its third corner is a point at infinity
    positions = torch.tensor([[1.0, -1, -0.1, 0], [1.0, 1, -0.1, 0], [0.0, 0, 0.9, 1]], dtype=torch.float64)
    raster = rasterize(positions, torch.tensor([[0, 1, 2]]), 16, 16, backend=backend)
    rows = torch.arange(16) + 0.5
    inside = (rows[None, :] - 8 >= (rows[:, None] - 8).abs()) & (raster.face_id[0] >= 0)
    assert torch.equal(inside, raster.face_id[0] >= 0)
    assert int(inside.sum()) > 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_wins_and_ties_go_to_the_lowest_face(backend: str) -> None:
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])

    def at(z: float) -> Tensor:
        return torch.cat((square * 2, torch.full((4, 1), z * 2), torch.full((4, 1), 2.0)), 1)

    positions = torch.cat((at(0.5), at(-0.25), at(0.5)))
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces = torch.cat((quad, quad + 4, quad + 8, quad.flip(1)))
    layers = [rasterize(positions, faces, 6, 6, backend=backend)]
    for _ in range(4):
        layers.append(rasterize(positions, faces, 6, 6, behind=layers[-1].face_id, backend=backend))
    groups = [(layer.face_id // 2).unique().tolist() for layer in layers]
    assert groups == [[1], [0], [2], [3], [-1]]
    assert [float(layer.depth[0, 0, 0]) for layer in layers] == [-0.25, 0.5, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_triangles_and_those_out_of_view_are_ignored(backend: str) -> None:
    positions = torch.tensor(
        [
            [-1.0, -1, 0, 1],
            [1, 1, 0, 1],
            [0, 0, 0, 1],
            [9, 9, 0, 1],
            [9, -9, 0, 1],
            [-5, 3, 0, 1],
            [0, 0, 3, 1],
            [0, 0, 0, 0],
            [1, 0, -3, -1],
        ]
    )
    faces = [[0, 1, 2], [0, 0, 1], [2, 2, 2], [3, 3, 4], [7, 7, 7], [0, 1, 7], [6, 6, 3], [3, 4, 3], [8, 8, 0]]
    assert int(rasterize(positions, torch.tensor(faces), 9, 9, backend=backend).face_id.max()) == -1
    right, beyond = (
        torch.tensor([[1.5, -1, 0, 1], [3, 0, 0, 1], [1.5, 1, 0, 1]]),
        torch.tensor([[-1.0, -1, 2, 1], [1, -1, 2, 1], [0, 1, 2, 1]]),
    )
    before, behind = beyond * torch.tensor([1, 1, -1, 1]), beyond * torch.tensor([1, 1, 1, -1])
    for corners in (right, beyond, before, behind, -right):
        assert int(rasterize(corners, torch.tensor([[0, 1, 2]]), 9, 9, backend=backend).face_id.max()) == -1


def test_sphere_outline_and_depth() -> None:
    radius, distance, size = 0.4, 2.0, 256
    ball = sphere(radius, 5)
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, distance]]), fov=30.0, width=size, height=size, near=0.5, far=4.0)
    raster = rasterize(project(camera, ball.vertices).float(), ball.faces, size, size)
    covered = raster.face_id[0] >= 0
    focal = float(camera.intrinsics[0, 0, 0])
    outline = focal * radius / math.sqrt(distance**2 - radius**2)
    assert int(covered.sum()) == pytest.approx(math.pi * outline**2, rel=2e-3)  # the polyhedron lies inside the ball, by 1e-3 of its area
    row, column = covered.nonzero(as_tuple=True)
    assert float(row.float().mean()) == pytest.approx(size / 2 - 0.5, abs=0.05)
    ray = torch.stack((column + 0.5 - size / 2, row + 0.5 - size / 2, torch.full_like(row, focal, dtype=torch.float32)), 1).double()
    ray = ray / ray[:, 2:]
    b, c = distance * ray[:, 2], distance**2 - radius**2
    root = b**2 - (ray**2).sum(1) * c
    depth = (b - root.clamp(min=0).sqrt()) / (ray**2).sum(1)
    gap = (view_depth(camera, raster)[0][covered] - depth)[root > 0.01]
    assert len(gap) > 10_000
    # facets lie up to 3e-4 inside the ball (the sagitta of an edge of length 0.03); grazing rays see 4 times that
    assert float(gap.min()) > -1e-5
    assert float(gap.max()) < 1.2e-3


def test_perspective_correct_uv_on_a_slanted_square() -> None:
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]).double(), fov=50.0, width=40, height=40, near=0.1, far=9.0)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    corners = torch.stack((uv[:, 0] - 0.5, uv[:, 1] - 0.5, -2 * uv[:, 1]), 1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    raster = rasterize(project(camera, corners), faces, 40, 40)
    found = interpolate(uv, faces, raster)[0]
    covered = raster.face_id[0] >= 0
    row, column = covered.nonzero(as_tuple=True)
    focal = float(camera.intrinsics[0, 0, 0])
    # on the ray (x, y, -1) t from (0, 0, 2): y t = v - 1/2 and 2 - t = -2 v
    x, y = (column + 0.5 - 20) / focal, -(row + 0.5 - 20) / focal
    t = 3 / (1 - 2 * y.double())
    expected = torch.stack((x * t + 0.5, y * t + 0.5), 1)
    assert len(row) > 100
    assert torch.allclose(found[covered], expected, atol=1e-6)
    assert bool((found[~covered] == 0).all())


def test_gradients_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(5)
    positions = torch.tensor(
        [[-0.8, -0.7, 0.1, 1.0], [1.3, -0.9, 0.4, 1.6], [0.2, 0.9, -0.2, 0.8], [-0.5, 0.6, 0.3, -0.4]],
        dtype=torch.float64,
        requires_grad=True,
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    attributes = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = rasterize(positions, faces, 4, 5).face_id
    assert set(ids.unique().tolist()) == {-1, 0, 1}

    def run(p: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        raster = rasterize(p, faces, 4, 5)
        return raster.barycentrics, raster.depth, interpolate(a, faces, raster), screen_derivatives(p, faces, raster)

    assert torch.autograd.gradcheck(run, (positions, attributes), eps=1e-7, atol=1e-5)


def test_screen_derivatives_against_a_finer_image() -> None:
    positions = torch.tensor([[-3.0, -2.5, 0.1, 1.0], [4.0, -3.5, 0.4, 1.6], [0.2, 3.9, -0.2, 0.8]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    raster = rasterize(positions, faces, 4, 4)
    assert int(raster.face_id.min()) == 0
    step = 1e-5
    for axis in range(2):
        moved = positions.clone()
        moved[:, axis] -= 2 / 4 * step * moved[:, 3]  # the image moves back, so each centre lands `step` pixels further on
        ahead = rasterize(moved, faces, 4, 4).barycentrics
        slope = (ahead - raster.barycentrics) / step
        assert torch.allclose(screen_derivatives(positions, faces, raster)[..., axis], slope, atol=1e-4)


def test_a_view_gives_the_same_alone_and_in_a_batch() -> None:
    mesh = torus(around=16, across=8)
    camera = Camera.look_at(torch.tensor([[1.0, 0.2, 0.5], [0.1, 0.9, 1.5], [0.3, 0.0, 0.0]]), width=30, height=20, near=0.01)
    positions = project(camera, mesh.vertices).float()
    together = rasterize(positions, mesh.faces, 20, 30)
    for i in range(3):
        alone = rasterize(positions[i], mesh.faces, 20, 30)
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone[:3], together[:3], strict=True))
