"""Rasterisation against what is known without it: areas, ray casting, finite differences."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.errors import BackendUnavailable, CapacityError, DeviceError, DtypeError, MeshError, RangeError, ShapeError
from voxgen.ops._registry import Call
from voxgen.ops.rasterize import RasterOutput, Window, _numba, _nvdiffrast, interpolate, rasterize, screen_derivatives
from voxgen.ops.rasterize._query import Query
from voxgen.testing.shapes import quad_faces, rotated, sphere, torus

BACKENDS = ("numba", "torch", "reference")


def project(camera: Camera, vertices: Tensor) -> Tensor:
    """World (v, 3) → clip space (b, v, 4) float64."""
    points = torch.cat((vertices.double(), torch.ones(len(vertices), 1, dtype=torch.float64)), 1)
    return points @ camera.clip_matrices().double().transpose(1, 2)


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


def crowd() -> tuple[Tensor, Tensor]:
    """Triangles of corners anywhere in clip space, w of both signs, on a lattice: many ties, some faces twice."""
    generator = torch.Generator().manual_seed(11)
    positions = (torch.randn(60, 4, generator=generator) * 4).round() / 4
    faces = torch.randint(0, 60, (150, 3), generator=generator)
    return positions, torch.cat((faces, faces[:40].flip(1)))


def same(a: RasterOutput, b: RasterOutput) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_has_the_bits_of_the_whole_image(backend: str) -> None:
    positions, faces = crowd()
    whole = rasterize(positions, faces, 27, 45, backend=backend)
    behind = rasterize(positions, faces, 27, 45, behind=whole.face_id, backend=backend)
    slopes, slopes_behind = (screen_derivatives(positions, faces, r) for r in (whole, behind))
    for top, left, rows, columns in ((5, 9, 11, 30), (26, 44, 1, 1)):
        part = (slice(None), slice(top, top + rows), slice(left, left + columns))
        front = rasterize(positions, faces, 27, 45, window=(top, left, rows, columns), backend=backend)
        second = rasterize(positions, faces, 27, 45, window=(top, left, rows, columns), behind=front.face_id, backend=backend)
        for found, expected, slope in ((front, whole, slopes), (second, behind, slopes_behind)):
            assert all(torch.equal(f, e[part]) for f, e in zip(found[:3], expected[:3], strict=True))
            assert torch.equal(screen_derivatives(positions, faces, found), slope[part])
        assert front.pixels == (27, 45, top, left, rows, columns)
    assert whole.window is None
    assert whole.pixels == (27, 45, 0, 0, 27, 45)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sections_change_nothing(backend: str) -> None:
    positions, faces = crowd()
    batch = torch.stack((positions, positions.flip(0), positions * torch.tensor([1.0, 1, -1, 1])))
    choices: tuple[dict[str, Any], ...] = ({}, {"ranges": torch.tensor([[0, 190], [17, 60], [100, 0]])})
    for options in choices:
        whole = rasterize(batch, faces, 20, 24, backend=backend, **options)
        behind = rasterize(batch, faces, 20, 24, behind=whole.face_id, backend=backend, **options)
        for count in (70, 189):
            assert same(rasterize(batch, faces, 20, 24, max_faces=count, backend=backend, **options), whole)
            assert same(rasterize(batch, faces, 20, 24, max_faces=count, behind=whole.face_id, backend=backend, **options), behind)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_packed_batch_equals_its_meshes_alone(backend: str) -> None:
    meshes = [rotated(torus(around=12, across=6)), sphere(0.3, 1), torus(around=5, across=4)]
    camera = Camera.look_at(torch.tensor([[0.9, 0.7, 0.4]]), width=30, height=26)
    parts = [project(camera, mesh.vertices)[0].float() for mesh in meshes]
    starts = torch.tensor([0, *[len(p) for p in parts]]).cumsum(0)
    faces = torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts, strict=False)])
    counts = [mesh.num_faces for mesh in meshes]
    # the second view draws nothing, the last one the first mesh again
    ranges = torch.tensor([[0, counts[0]], [5, 0], [counts[0], counts[1]], [counts[0] + counts[1], counts[2]], [0, counts[0]]])
    packed = rasterize(torch.cat(parts).requires_grad_(), faces, 26, 30, ranges=ranges.int(), backend=backend)
    assert packed.face_id.shape == (5, 26, 30)
    assert int(packed.face_id[1].max()) == -1
    for view, which in ((0, 0), (2, 1), (3, 2), (4, 0)):
        alone = rasterize(parts[which], meshes[which].faces, 26, 30, backend=backend)
        first = int(ranges[view, 0])
        assert torch.equal(packed.face_id[view], torch.where(alone.face_id[0] >= 0, alone.face_id[0] + first, -1))
        assert torch.equal(packed.barycentrics[view], alone.barycentrics[0])
        assert torch.equal(packed.depth[view], alone.depth[0])
        values = interpolate(torch.cat(parts), faces, packed)[view]
        assert torch.equal(values, interpolate(parts[which], meshes[which].faces, alone)[0])
    assert torch.equal(screen_derivatives(torch.cat(parts), faces, packed)[0], screen_derivatives(torch.cat(parts), faces, packed)[4])


@pytest.mark.parametrize("backend", BACKENDS)
def test_peeling_visits_every_face_once(backend: str) -> None:
    """Peeling visits every face that covers a pixel, each once, in order of depth and index."""
    positions, faces = crowd()[0].double(), crowd()[1][120:]
    previous, seen, depths = None, [], []
    while not seen or bool((seen[-1] >= 0).any()):
        raster = rasterize(positions, faces, 9, 10, behind=previous, backend=backend)
        previous = raster.face_id
        seen.append(raster.face_id[0])
        depths.append(torch.where(raster.face_id[0] >= 0, raster.depth[0], torch.inf))
    assert len(seen) > 5
    ids, depth = torch.stack(seen), torch.stack(depths)
    assert bool((depth[1:] >= depth[:-1]).all())
    assert bool((ids[1:] > ids[:-1])[(depth[1:] == depth[:-1]) & (ids[1:] >= 0)].all())
    one_by_one = torch.cat([rasterize(positions, face[None], 9, 10, backend=backend).face_id >= 0 for face in faces])
    found = torch.zeros_like(one_by_one, dtype=torch.int64)
    for layer in seen:
        row, column = (layer >= 0).nonzero(as_tuple=True)
        found[layer[row, column].long(), row, column] += 1
    assert torch.equal(found, one_by_one.long())


def test_order_of_faces_lists_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    mesh = rotated(torus(around=200, across=100))  # 40,000 faces: three lists a band
    camera = Camera.look_at(torch.tensor([[0.5, 0.6, 0.7]]), width=150, height=170)
    positions = project(camera, mesh.vertices).float()
    expected = rasterize(positions, mesh.faces, 170, 150).face_id
    order = torch.randperm(mesh.num_faces)
    shuffled = rasterize(positions, mesh.faces[order], 170, 150).face_id.long()
    assert torch.equal(torch.where(shuffled >= 0, order[shuffled.clamp(min=0)], -1).int(), expected)
    monkeypatch.setattr(_numba, "_SLAB", 10_000)
    assert torch.equal(rasterize(positions, mesh.faces, 170, 150).face_id, expected)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert torch.equal(rasterize(positions, mesh.faces, 170, 150).face_id, expected)
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("block", [512, 1 << 14])
def test_triton_under_the_interpreter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxgen.ops.rasterize import _triton

    monkeypatch.setattr(_triton, "INTERPRETED_BLOCK", block)
    monkeypatch.setattr(_triton, "_LAUNCH", 8 * block)  # several launches
    positions, faces = crowd()
    options: dict[str, Any] = {"window": (3, 5, 4, 6), "max_faces": 150}
    first = rasterize(positions, faces, 9, 12, backend="triton", **options)
    assert same(first, rasterize(positions, faces, 9, 12, backend="reference", **options))
    second = rasterize(positions, faces, 9, 12, behind=first.face_id, backend="triton", **options)
    assert same(second, rasterize(positions, faces, 9, 12, behind=first.face_id, backend="reference", **options))
    assert int((second.face_id >= 0).sum()) > 5


def test_nvdiffrast_gets_what_it_takes_and_its_ids_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that answers as the library does: ids from 1 as floats, in the last channel, for the faces it is given."""
    contexts: list[torch.device] = []

    def stand_in(context: str, pos: Tensor, tri: Tensor, resolution: tuple[int, int], grad_db: bool) -> tuple[Tensor, Tensor]:
        assert context == "context"
        assert not grad_db
        assert (pos.dtype, tri.dtype, pos.is_contiguous(), tri.is_contiguous()) == (torch.float32, torch.int32, True, True)
        ids = rasterize(pos, tri, *resolution).face_id + 1
        return torch.cat((torch.rand(*ids.shape, 3), ids[..., None].float()), -1), torch.zeros(0)

    library = ModuleType("nvdiffrast")
    library.torch = ModuleType("nvdiffrast.torch")  # pyright: ignore[reportAttributeAccessIssue]
    library.torch.rasterize = stand_in  # pyright: ignore[reportAttributeAccessIssue]
    library.torch.RasterizeCudaContext = lambda device: contexts.append(device) or "context"  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "nvdiffrast", library)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", library.torch)
    monkeypatch.setattr(_nvdiffrast, "_CONTEXTS", {})
    positions, faces = crowd()
    batch, ranges = torch.stack((positions, positions.flip(0), positions)), ((0, 190), (20, 60), (7, 0))
    query = Query(batch, faces.int(), ranges, Window(27, 45, 4, 3, 20, 30))
    expected = rasterize(batch, faces, 27, 45, ranges=torch.tensor(ranges), window=(4, 3, 20, 30))
    assert torch.equal(_nvdiffrast.visible_faces(query), expected.face_id)
    assert contexts == [torch.device("cpu")]
    monkeypatch.setattr(_nvdiffrast, "MAX_FACES", 100)
    with pytest.raises(CapacityError, match="Lower max_faces"):
        _nvdiffrast.visible_faces(query)
    assert nvdiffrast_reasons("cuda") == ""
    assert "runs on cuda" in nvdiffrast_reasons("cpu")
    assert "behind" in nvdiffrast_reasons("cuda", peels=True)
    assert "not exact" in nvdiffrast_reasons("cuda", exact=True)


def nvdiffrast_reasons(device: str, **facts: Any) -> str:
    return "; ".join(_nvdiffrast.nvdiffrast_serves(Call(torch.device(device), torch.float32, False, facts)))


def test_nothing_to_see() -> None:
    none = torch.zeros(0, 3, dtype=torch.int32)
    positions = torch.zeros(0, 4, requires_grad=True)
    raster = rasterize(positions, none, 3, 5)
    assert raster.face_id.shape == (1, 3, 5)
    assert bool((raster.face_id == -1).all())
    assert bool((raster.depth == 1).all())
    assert interpolate(torch.zeros(0, 2), none, raster).shape == (1, 3, 5, 2)
    assert interpolate(torch.zeros(0, 0), none, raster).shape == (1, 3, 5, 0)
    (gradient,) = torch.autograd.grad(raster.depth.sum(), positions)
    assert gradient.shape == (0, 4)
    assert rasterize(torch.zeros(0, 7, 4), torch.tensor([[0, 1, 2]]), 3, 5).depth.shape == (0, 3, 5)


TRIANGLE = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]])
ONE = torch.tensor([[0, 1, 2]])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((TRIANGLE[:, :3], ONE, 4, 4), ShapeError, r"positions must be \(v, 4\)"),
        ((TRIANGLE[0], ONE, 4, 4), ShapeError, r"positions must be \(b, v, 4\)"),
        ((TRIANGLE.half(), ONE, 4, 4), DtypeError, "float32 or float64; got"),
        (([[0.0]], ONE, 4, 4), DtypeError, "positions must be a tensor"),
        ((TRIANGLE, ONE[0], 4, 4), ShapeError, r"faces must be \(f, 3\)"),
        ((TRIANGLE, ONE.float(), 4, 4), DtypeError, "int32 or int64"),
        ((TRIANGLE, ONE + 1, 4, 4), MeshError, "index 3 vertices; got indices from 1 to 3"),
        ((TRIANGLE, ONE - 1, 4, 4), MeshError, "from -1 to 1"),
        ((TRIANGLE * torch.nan, ONE, 4, 4), RangeError, "positions must be finite; 3 of 3 rows are not"),
        ((TRIANGLE / 0, ONE, 4, 4), RangeError, "positions must be finite"),
        ((TRIANGLE, ONE, 0, 4), RangeError, "height must be from 1 to 32768; got 0"),
        ((TRIANGLE, ONE, 4, -1), RangeError, "width must be from 1"),
        ((TRIANGLE, ONE, 4, 2.5), DtypeError, "whole number"),
        ((TRIANGLE, ONE, 100_000, 4), RangeError, "height"),
        ((TRIANGLE, ONE.to("meta"), 4, 4), DeviceError, "one device"),
    ],
)
def test_bad_arguments(arguments: tuple[Tensor, Tensor, int, int], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rasterize(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ranges": torch.tensor([[0, 2]])}, RangeError, r"row 0 = \[0, 2\] asks for faces 0 to 2. Give"),
        ({"ranges": torch.tensor([[0, 1], [-1, 1]])}, RangeError, "row 1"),
        ({"ranges": torch.tensor([[0, -1]])}, RangeError, "row 0"),
        ({"ranges": torch.tensor([0, 1])}, ShapeError, r"ranges must be \(b, 2\)"),
        ({"ranges": torch.tensor([[0.0, 1.0]])}, DtypeError, "int32 or int64"),
        ({"window": (0, 0, 4)}, ShapeError, "top, left, rows, columns"),
        ({"window": (0, 0, 5, 4)}, RangeError, "rows.*from 1 to 4"),
        ({"window": (0, 4, 1, 1)}, RangeError, "left.*from 0 to 3"),
        ({"window": (-1, 0, 1, 1)}, RangeError, "top"),
        ({"window": (0, 0, 1, 0)}, RangeError, "columns"),
        ({"window": (0, 0, 1.5, 1)}, DtypeError, "whole number"),
        ({"max_faces": 0}, RangeError, "max_faces must be at least 1"),
        ({"window": (0, 0, 2, 2), "behind": torch.zeros(1, 4, 4, dtype=torch.int32)}, ShapeError, r"behind must be \(1, 2, 2\)"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rasterize(TRIANGLE, ONE, 4, 4, **options)


def test_bad_layers_backends_and_attributes() -> None:
    with pytest.raises(ShapeError, match=r"ranges must be \(2, 2\)"):
        rasterize(torch.stack((TRIANGLE, TRIANGLE)), ONE, 4, 4, ranges=torch.tensor([[0, 1]]))
    raster = rasterize(TRIANGLE, ONE, 4, 4)
    with pytest.raises(ShapeError, match=r"behind must be \(1, 4, 5\)"):
        rasterize(TRIANGLE, ONE, 4, 5, behind=raster.face_id)
    with pytest.raises(MeshError, match="behind must name some of the 1 faces"):
        rasterize(TRIANGLE, ONE, 4, 4, behind=raster.face_id + 1)
    with pytest.raises(BackendUnavailable, match="reference: ready"):
        rasterize(TRIANGLE.double(), ONE, 4, 4, backend="triton")
    with pytest.raises(BackendUnavailable, match=r"nvdiffrast: .*package nvdiffrast is not installed|runs on cuda"):
        rasterize(TRIANGLE, ONE, 4, 4, backend="nvdiffrast")
    with pytest.raises(MeshError, match="row for each vertex"):
        interpolate(torch.zeros(2, 1), ONE, raster)
    with pytest.raises(MeshError, match="those given to rasterize"):
        interpolate(torch.zeros(3, 1), ONE[:0], raster)
    with pytest.raises(DtypeError, match="attributes"):
        interpolate(torch.zeros(3, 1, dtype=torch.int32), ONE, raster)
    with pytest.raises(ShapeError, match=r"\(1, v, c\)"):
        interpolate(torch.zeros(2, 3, 1), ONE, raster)
