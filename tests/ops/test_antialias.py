"""Antialiasing against exact areas, finite differences, and what must not change."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from projected import project
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.errors import BackendUnavailable, DeviceError, DtypeError, MeshError, ShapeError
from voxgen.ops.antialias import antialias, opposite_vertices
from voxgen.ops.rasterize import rasterize
from voxgen.testing.shapes import box, quad_faces, rotated, seam, sphere, torus

BACKENDS = ("numba", "reference")
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


def square(half: float, angle: float = 0.0, scale: Tensor | None = None) -> Tensor:
    """Corners (4, 4) float64 of a turned square around the middle of the image."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64) * half
    c, s = math.cos(angle), math.sin(angle)
    turned = corners @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    if scale is not None:
        turned = turned * scale
    return torch.cat((turned, torch.tensor([[0.0, 1.0]] * 4, dtype=torch.float64)), 1)


def soft_mask(positions: Tensor, faces: Tensor, height: int, width: int, **options: Any) -> Tensor:
    raster = rasterize(positions, faces, height, width)
    mask = (raster.face_id >= 0).to(positions.dtype)[..., None]
    return antialias(mask, raster, positions, faces, **options)[..., 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("half", "angle", "hard", "soft", "slope"),
    [
        # sums as measured from an independent implementation; the exact areas are 1036.325 and their derivatives 2072.65
        (0.503, 0.0, 1024, 1036.096, None),
        (0.503, 0.2, 1040, 1036.437, 2069.4),
        # at 45°, counted once: the exact area is 1024 (counted twice it would be 1034.43)
        (0.5, math.pi / 4, 1012, None, None),
    ],
)
def test_area_of_a_square_and_its_growth(
    backend: str, half: float, angle: float, hard: int, soft: float | None, slope: float | None
) -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    positions = square(half, angle, scale)
    assert int((rasterize(positions, QUAD, 64, 64).face_id >= 0).sum()) == hard
    mask = soft_mask(positions, QUAD, 64, 64, backend=backend)
    assert 0 <= float(mask.detach().min()) <= float(mask.detach().max()) <= 1
    (growth,) = torch.autograd.grad(mask.sum(), scale)
    area = (2 * half * 32) ** 2
    # two rows at the corners have no outline of their own triangle: up to 2 % of the gradient in the unturned case
    assert float(growth) == pytest.approx(2 * area, rel=0.035)
    assert float(mask.detach().sum()) == pytest.approx(area, rel=1e-3)
    if soft is not None:
        assert float(mask.detach().sum()) == pytest.approx(soft, abs=5e-4)
    if slope is not None:
        # the measured number has a constant of 1e-3 pixels in its denominators, which is 5e-5 of it
        assert float(growth) == pytest.approx(slope, rel=5e-5)


def test_gradients_of_colour_and_positions_against_finite_differences() -> None:
    # a fan of five triangles over a farther one, all outlines at a distance from pixel centres and from each other
    positions = torch.tensor(
        [
            [0.07, 0.04, 0.0, 1.0],
            [-0.63, -0.71, 0.1, 1.1],
            [0.69, -0.55, 0.2, 0.9],
            [0.81, 0.52, -0.1, 1.3],
            [-0.12, 0.85, 0.0, 1.0],
            [-0.77, 0.31, 0.3, 1.2],
            [-0.95, -0.25, 0.9, 1.0],
            [0.9, -0.93, 0.9, 1.0],
            [0.35, 0.97, 0.9, 1.0],
        ],
        dtype=torch.float64,
        requires_grad=True,
    )
    faces = torch.tensor([[0, 1 + i, 1 + (i + 1) % 5] for i in range(5)] + [[6, 7, 8]])
    color = torch.randn(1, 7, 8, 2, dtype=torch.float64, requires_grad=True)
    raster = rasterize(positions.detach(), faces, 7, 8)

    def run(c: Tensor, p: Tensor) -> Tensor:
        return antialias(c, raster, p, faces)

    (moved,) = torch.autograd.grad(run(color, positions).square().sum(), positions)
    assert int((moved[:, :2] != 0).any(1).sum()) >= 7  # both rims
    assert bool((moved[0] == 0).all())  # the middle of the fan is no outline
    assert bool((moved[:, 2] == 0).all())
    # clamped crossings pass their gradient straight through, so they are compared apart
    assert torch.autograd.gradcheck(run, (color, positions.detach()), eps=1e-6, atol=1e-6)
    free = away_from_the_clamp(positions.detach(), faces)
    upstream = torch.zeros_like(color)
    upstream[0][free] = torch.randn_like(upstream[0][free])
    (analytic,) = torch.autograd.grad((run(color.detach(), positions) * upstream).sum(), positions)
    step, numeric = 1e-6, torch.zeros_like(positions)
    for vertex, axis in itertools.product(range(9), range(4)):
        ahead, back = positions.detach().clone(), positions.detach().clone()
        ahead[vertex, axis] += step
        back[vertex, axis] -= step
        numeric[vertex, axis] = ((run(color.detach(), ahead) - run(color.detach(), back)) * upstream).sum() / (2 * step)
    assert int(free.sum()) > 45
    assert torch.allclose(analytic, numeric, atol=1e-6, rtol=1e-6)


def away_from_the_clamp(positions: Tensor, faces: Tensor) -> Tensor:
    """(7, 8) bool: pixels whose value moves with the outlines exactly as its gradient says: those no clamped crossing touches."""
    raster = rasterize(positions, faces, 7, 8)
    probe = positions.clone().requires_grad_()
    color = torch.rand(1, 7, 8, 1, dtype=torch.float64)
    free = torch.ones(7, 8, dtype=torch.bool)
    soft = antialias(color, raster, probe, faces)
    for row, column in itertools.product(range(7), range(8)):
        (slope,) = torch.autograd.grad(soft[0, row, column, 0], probe, retain_graph=True)
        for vertex, axis in (slope != 0).nonzero().tolist():
            moved = positions.clone()
            moved[vertex, axis] += 1e-6
            change = (antialias(color, raster, moved, faces) - soft)[0, row, column, 0].detach() / 1e-6
            if abs(float(change - slope[vertex, axis])) > 1e-3 * (1 + abs(float(slope[vertex, axis]))):
                free[row, column] = False
    return free


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_inside_of_a_closed_surface_is_left_alone(backend: str) -> None:
    ball = sphere(0.4, 2)
    camera = Camera.look_at(torch.tensor([[0.3, 0.4, 1.7]]), width=60, height=60, fov=35.0)
    positions = project(camera, ball.vertices)
    raster = rasterize(positions, ball.faces, 60, 60)
    color = torch.rand(1, 60, 60, 3, dtype=torch.float64)
    changed = (antialias(color, raster, positions, ball.faces, backend=backend) != color).any(3)[0]
    covered = (raster.face_id[0] >= 0).float()[None, None]
    # two pixels inside: a crossing up to 1/16 beyond the second centre counts too, which may be just inside the outline
    deep = -torch.nn.functional.max_pool2d(-covered, 5, 1, 2)[0, 0] > 0
    outside = torch.nn.functional.max_pool2d(covered, 3, 1, 1)[0, 0] == 0
    assert not bool(changed[deep | outside].any())
    # few: where the triangle of the outline is a sliver, the pixels beside it see another one
    assert int(changed.sum()) > 25
    soup = positions[0][ball.faces.long()].reshape(1, -1, 4)
    loose = torch.arange(soup.shape[1]).view(-1, 3)
    assert bool((antialias(color, raster, soup, loose, backend=backend) != color).any(3)[0][deep].any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_which_edges_are_outlines(backend: str) -> None:
    def changed(positions: Tensor, faces: Tensor, **options: Any) -> int:
        raster = rasterize(positions, faces, 8, 9)
        color = torch.arange(72, dtype=torch.float64).view(1, 8, 9, 1)
        return int((antialias(color, raster, positions, faces, backend=backend, **options) != color).sum())

    def at(*corners: tuple[float, float, float]) -> Tensor:
        return torch.cat((torch.tensor(corners, dtype=torch.float64), torch.ones(len(corners), 1, dtype=torch.float64)), 1)

    # an upright edge from (0.05, -3) to (0.05, 3), and sheets from it to the left and right beyond the image
    edge = ((0.05, -3.0, 0.0), (0.05, 3.0, 0.0))
    left, right, far, level = (-9.0, 0.0, 0.3), (9.0, 0.0, 0.3), (-20.0, 0.0, 0.9), (0.05, 7.0, 0.5)
    flat = at(*edge, left, right)
    both = torch.tensor([[0, 1, 2], [1, 0, 3]])
    assert changed(flat, both) == 0
    assert changed(flat, both.flip(1)) == 0
    assert changed(flat, torch.tensor([[0, 1, 2], [0, 1, 3]])) == 0  # winding does not matter
    assert changed(flat, both[:1]) == 8  # a border
    fold = at(*edge, left, far)
    assert changed(fold, both) == 8  # both sheets on one side
    assert changed(at(*edge, left, level), both) == 8  # the other sheet is seen edge-on
    three = torch.cat((both, torch.tensor([[0, 1, 4]])))
    assert changed(at(*edge, left, right, (9.0, 0.0, 0.9)), three) == 8  # three sheets
    assert changed(flat, torch.cat((both, torch.tensor([[0, 1, 1], [0, 0, 1]])))) == 0  # a face without area is no sheet
    assert changed(flat, both, edges=opposite_vertices(both)) == 0
    assert changed(flat, both, edges=torch.full((2, 3), -1, dtype=torch.int32)) == 8  # what the caller says, counts


def test_vertices_across_edges_against_all_pairs_of_faces() -> None:
    meshes = (torus(around=7, across=5).faces, seam().faces, box().faces, torch.randint(0, 9, (30, 3)).int(), torch.zeros(0, 3).int())
    for faces in meshes:
        expected = torch.full((len(faces), 3), -1, dtype=torch.int32)
        proper = [f for f in range(len(faces)) if len(set(faces[f].tolist())) == 3]
        for f in proper:
            for k in range(3):
                ends = set(faces[f].tolist()) - {int(faces[f, k])}
                sharing = [g for g in proper if g != f and ends < set(faces[g].tolist())]
                if len(sharing) == 1:
                    expected[f, k] = (set(faces[sharing[0]].tolist()) - ends).pop()
        assert torch.equal(opposite_vertices(faces), expected)
        assert torch.equal(opposite_vertices(faces.long()), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_triangle_through_the_eye_equals_a_copy_cut_at_the_near_plane(backend: str) -> None:
    eye = torch.tensor([[0.0, 0.0, 0.0]]).double()
    camera = Camera.look_at(eye, target=(0.0, 0.0, -1.0), fov=70.0, width=48, height=40, near=0.1, far=10.0)
    floor = torch.tensor([[-2.0, -0.3, -6.0], [3.0, -0.3, -5.0], [0.2, -0.3, 7.0]], dtype=torch.float64)  # the last lies behind the eye
    t = (-0.05 - floor[:2, 2:]) / (floor[2, 2] - floor[:2, 2:])
    cut = torch.cat((floor[:2], floor[:2] + t * (floor[2] - floor[:2])))  # at z = -0.05, nearer than the near plane
    whole = soft_mask(project(camera, floor), torch.tensor([[0, 1, 2]]), 40, 48, backend=backend)
    parts = soft_mask(project(camera, cut), torch.tensor([[0, 1, 3], [0, 3, 2]]), 40, 48, backend=backend)
    between = (whole > 0) & (whole < 1)
    assert int(between.sum()) > 40
    # where a pixel sees the one part and the outline is the other part's, the copy has no blending
    assert float(((whole - parts).abs() > 1e-9).double().sum()) <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_turned_images_are_those_of_the_turned_scene(backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    positions = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    faces = torch.randint(0, 30, (40, 3), generator=generator)
    upright = soft_mask(positions, faces, 20, 26, backend=backend)
    for axis in (1, 0):
        mirror = torch.ones(4, dtype=torch.float64)
        mirror[axis] = -1
        assert torch.allclose(soft_mask(positions * mirror, faces, 20, 26, backend=backend), upright.flip(2 - axis), atol=1e-12)
    transposed = soft_mask(positions[:, [1, 0, 2, 3]], faces, 26, 20, backend=backend).transpose(1, 2)
    assert torch.allclose(transposed, upright, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_windows_and_packed_meshes_are_those_alone(backend: str) -> None:
    mesh = rotated(torus(around=16, across=8))
    camera = Camera.look_at(torch.tensor([[1.0, 0.2, 0.5], [0.1, 0.9, 1.5], [0.3, 0.0, 0.0]]), width=30, height=20, near=0.01)
    positions = project(camera, mesh.vertices).float()
    color = torch.rand(3, 20, 30, 4)
    raster = rasterize(positions, mesh.faces, 20, 30)
    together = antialias(color, raster, positions, mesh.faces, backend=backend)
    for i in range(3):
        alone = antialias(color[i : i + 1], rasterize(positions[i], mesh.faces, 20, 30), positions[i], mesh.faces, backend=backend)
        assert torch.equal(alone[0], together[i])
    part = rasterize(positions, mesh.faces, 20, 30, window=(3, 5, 12, 20))
    cropped = antialias(color[:, 3:15, 5:25].contiguous(), part, positions, mesh.faces, backend=backend)
    assert torch.equal(cropped[:, 1:-1, 1:-1], together[:, 4:14, 6:24])  # pixels at the border do not know their neighbours outside
    packed = positions.flatten(0, 1)
    faces = torch.cat([mesh.faces + i * mesh.num_vertices for i in range(3)])
    ranges = torch.tensor([[i * mesh.num_faces, mesh.num_faces] for i in range(3)])
    packed_raster = rasterize(packed, faces, 20, 30, ranges=ranges)
    assert torch.equal(antialias(color, packed_raster, packed, faces, backend=backend), together)


def test_a_mask_keeps_its_dtype_and_any_number_of_channels() -> None:
    positions = square(0.503, 0.2).float()
    raster = rasterize(positions, QUAD, 16, 16)
    expected = soft_mask(positions, QUAD, 16, 16)
    for dtype, gap in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float64, 1e-6)):
        mask = (raster.face_id >= 0).to(dtype)[..., None].expand(1, 16, 16, 5)
        found = antialias(mask, raster, positions, QUAD)
        assert found.dtype == dtype
        assert torch.allclose(found.double(), expected[..., None].double().expand(1, 16, 16, 5), atol=gap)
    assert antialias(torch.zeros(1, 16, 16, 0), raster, positions, QUAD).shape == (1, 16, 16, 0)


def test_fitting_a_sphere_to_the_masks_of_a_cube() -> None:
    eyes = torch.tensor([[1.6, 0, 0], [0, 0.1, 1.6], [0.1, 1.6, 0.1], [1.0, 0.9, 0.8]], dtype=torch.float64)
    camera = Camera.look_at(eyes, width=32, height=32, fov=40.0)
    cube, ball = box((-0.28, -0.28, -0.28), (0.28, 0.28, 0.28)), sphere(0.3, 2)
    target = soft_mask(project(camera, cube.vertices), cube.faces, 32, 32)
    vertices = ball.vertices.double().clone().requires_grad_()
    edges = opposite_vertices(ball.faces)
    optimizer = torch.optim.Adam([vertices], lr=0.008)
    losses = []
    for _ in range(60):
        loss = (soft_mask(project(camera, vertices), ball.faces, 32, 32, edges=edges) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # the masks of the ball cover 70 % of the cube's; in the end less than 1 % of the pixels' weight is wrong
    assert losses[0] > 0.03
    assert losses[-1] < 0.03 * losses[0]
    assert bool(vertices.isfinite().all())


def test_nothing_to_blend() -> None:
    none = torch.zeros(0, 3, dtype=torch.int32)
    positions = torch.zeros(0, 4, requires_grad=True)
    raster = rasterize(positions, none, 3, 5)
    color = torch.rand(1, 3, 5, 2, requires_grad=True)
    soft = antialias(color, raster, positions, none)
    assert torch.equal(soft, color)
    to_color, to_positions = torch.autograd.grad(soft.sum(), (color, positions))
    assert torch.equal(to_color, torch.ones_like(color))
    assert to_positions.shape == (0, 4)
    empty = rasterize(torch.zeros(0, 7, 4), QUAD, 3, 5)
    assert antialias(torch.zeros(0, 3, 5, 1), empty, torch.zeros(0, 7, 4), QUAD).shape == (0, 3, 5, 1)


def test_degenerate_triangles_give_finite_gradients() -> None:
    generator = torch.Generator().manual_seed(8)
    positions = (torch.randn(30, 4, generator=generator) * 2).round() / 2  # many corners at one place, w = 0, no area
    positions.requires_grad_()
    faces = torch.randint(0, 30, (90, 3), generator=generator)
    raster = rasterize(positions, faces, 16, 16)
    color = torch.rand(1, 16, 16, 3, generator=generator, requires_grad=True)
    soft = antialias(color, raster, positions, faces)
    assert int((soft != color).sum()) > 20
    for gradient in torch.autograd.grad(soft.square().sum(), (color, positions)):
        assert bool(gradient.isfinite().all())


CORNERS = square(0.5).float()
RASTER = rasterize(CORNERS, QUAD, 6, 8)
COLOR = torch.zeros(1, 6, 8, 3)


@pytest.mark.parametrize(
    ("color", "positions", "faces", "edges", "error", "words"),
    [
        (COLOR[..., 0], CORNERS, QUAD, None, ShapeError, r"color must be \(1, 6, 8, c\)"),
        (COLOR[:, 1:], CORNERS, QUAD, None, ShapeError, r"color must be \(1, 6, 8, c\)"),
        (COLOR.int(), CORNERS, QUAD, None, DtypeError, "color"),
        (COLOR, CORNERS[:, :3], QUAD, None, ShapeError, r"positions must be \(b, v, 4\)"),
        (COLOR, CORNERS.half(), QUAD, None, DtypeError, "float32 or float64"),
        (COLOR, torch.stack((CORNERS, CORNERS)), QUAD, None, ShapeError, "1 views"),
        (COLOR, CORNERS[:3], QUAD, None, MeshError, "row for each vertex; got 3 for index 3"),
        (COLOR, CORNERS, QUAD[:0], None, MeshError, "names face 1 of 0"),
        (COLOR, CORNERS, QUAD.float(), None, DtypeError, "faces"),
        (COLOR, CORNERS, QUAD, torch.zeros(3, 3, dtype=torch.int32), ShapeError, r"edges must be \(2, 3\).*opposite_vertices"),
        (COLOR, CORNERS, QUAD, torch.zeros(2, 3), DtypeError, "int32"),
        (COLOR, CORNERS, QUAD, torch.full((2, 3), 9, dtype=torch.int32), MeshError, "index 9"),
        (COLOR.to("meta"), CORNERS, QUAD, None, DeviceError, "one device"),
    ],
)
def test_bad_arguments(color: Tensor, positions: Tensor, faces: Tensor, edges: Tensor | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        antialias(color, RASTER, positions, faces, edges=edges)


def test_bad_backends_and_faces() -> None:
    with pytest.raises(BackendUnavailable, match="reference: ready"):
        antialias(COLOR, RASTER, CORNERS, QUAD, backend="triton")
    with pytest.raises(ShapeError, match="opposite_vertices: faces"):
        opposite_vertices(quad_faces(3, 3)[:, :2])
