"""sample_surface: even, unbiased, repeatable, on the surface."""

import math

import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError
from voxgen.ops.sample_surface import sample_surface
from voxgen.ops.sample_surface._numba import faces_at
from voxgen.testing.shapes import box, rotated, sphere, wavy_sheet

SQUARE = TriMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_each_face_gets_its_share_rounded_up_or_down() -> None:
    mesh = rotated(wavy_sheet(), 1.0)
    for samples in (1, 7, 1000, 54_321):
        found = sample_surface(mesh, samples, seed=samples)
        count = found.faces.bincount(minlength=mesh.num_faces)
        share = mesh.face_areas().double() / mesh.face_areas().double().sum() * samples
        assert len(found) == samples == int(count.sum())
        assert bool(((count - share).abs() < 1 + 1e-3).all())  # areas of the test in float32


def test_samples_lie_on_their_faces() -> None:
    mesh = sphere()
    found = sample_surface(mesh, 5000)
    corners = mesh.corners()[found.faces]
    assert bool((found.barycentric >= 0).all())
    torch.testing.assert_close(found.barycentric.sum(1), torch.ones(5000), atol=1e-6, rtol=0)
    torch.testing.assert_close((found.barycentric[:, :, None] * corners).sum(1), found.points)
    torch.testing.assert_close(found.normals, mesh.face_normals()[found.faces])
    assert bool((found.faces.diff() >= 0).all())


def test_moments_converge_faster_than_independent_points() -> None:
    # ∫x, ∫x², ∫xy over the unit square: 1/2, 1/3, 1/4. Independent points: standard error about 0.3 / √n = 3e-3,
    # so the worst of 60 would be near 7e-3; measured here 5e-4.
    worst = 0.0
    for seed in range(20):
        x, y, _ = sample_surface(SQUARE, 10_000, seed=seed).points.unbind(1)
        worst = max(worst, *(abs(float(m)) for m in (x.mean() - 0.5, (x * x).mean() - 1 / 3, (x * y).mean() - 0.25)))
    assert worst < 1e-3


def test_few_samples_are_unbiased() -> None:
    # mean over seeds of a single sample's position: standard error sqrt(1/12 / 2000) = 6.5e-3
    points = torch.cat([sample_surface(SQUARE, 1, seed=seed).points for seed in range(2000)])
    assert float((points[:, :2].mean(0) - 0.5).abs().max()) < 4 * 6.5e-3
    assert float((points[:, :2].std(0) - math.sqrt(1 / 12)).abs().max()) < 0.02


def test_points_keep_their_distance() -> None:
    # the low-discrepancy sequence leaves no two points much closer than the mean spacing
    points = sample_surface(SQUARE, 1000).points
    gaps = torch.cdist(points, points).fill_diagonal_(1)
    assert float(gaps.min()) > 0.1 / math.sqrt(1000)


def test_same_seed_same_points() -> None:
    one, two, other = (sample_surface(sphere(), 100, seed=seed).points for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_degenerate_faces_get_no_sample() -> None:
    faces = torch.tensor([[0, 0, 1], [0, 1, 2], [1, 1, 1], [0, 2, 3], [2, 3, 3]])
    found = sample_surface(TriMesh(SQUARE.vertices, faces), 1000)
    assert found.faces.unique().tolist() == [1, 3]


def test_gradient_to_vertices() -> None:
    vertices = box().vertices.double().requires_grad_()
    sample_surface(TriMesh(vertices, box().faces), 100).points.sum().backward()
    assert vertices.grad is not None
    assert float(vertices.grad.sum()) == pytest.approx(300)  # weights of each point sum to 1


def test_bad_input() -> None:
    with pytest.raises(MeshError, match=r"sample_surface: mesh must have a face with area"):
        sample_surface(TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 1]])))
    with pytest.raises(MeshError, match="at least one face"):
        sample_surface(TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32)))
    with pytest.raises(RangeError, match="samples must be at least 1"):
        sample_surface(box(), 0)
    with pytest.raises(DtypeError, match="samples must be a whole number"):
        sample_surface(box(), 1.5)  # pyright: ignore[reportArgumentType]


class TestIndependent:
    def test_faces_by_area_and_uniform_inside(self) -> None:
        mesh = TriMesh(torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [0, 1, 5]]), torch.tensor([[0, 1, 2], [0, 3, 4]]))
        found = sample_surface(mesh, 40_000, method="independent", seed=3)
        share = float((found.faces == 0).double().mean())  # areas 1.5 and 2.5; standard error 2.4e-3
        assert share == pytest.approx(1.5 / 4, abs=0.01)
        mean = found.barycentric.mean(0)  # each 1/3, standard error sqrt(1/18 / 40,000) = 1.2e-3
        assert float((mean - 1 / 3).abs().max()) < 6e-3
        assert float((found.barycentric.double().var(0) - 1 / 18).abs().max()) < 2e-3
        assert bool((found.barycentric > -1e-7).all())
        torch.testing.assert_close(found.normals, mesh.face_normals()[found.faces])

    def test_error_is_that_of_independent_points(self) -> None:
        # standard error of the mean of x over the unit square, 1000 points: sqrt(1/12 / 1000) = 9.1e-3; of 200 seeds the spread
        # is known to 5 %. The systematic way is below 1e-3 here.
        means = torch.stack([sample_surface(SQUARE, 1000, method="independent", seed=seed).points[:, 0].mean() for seed in range(200)])
        assert float(means.std()) == pytest.approx(9.1e-3, rel=0.25)

    def test_first_points_are_a_uniform_sample_too(self) -> None:
        first = sample_surface(SQUARE, 20_000, method="independent").points[:5000, :2]
        assert float((first.mean(0) - 0.5).abs().max()) < 0.02

    def test_seeds_and_degenerate_faces(self) -> None:
        one, two, other = (sample_surface(sphere(), 100, method="independent", seed=seed).points for seed in (5, 5, 6))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        faces = torch.tensor([[0, 0, 1], [0, 1, 2], [1, 1, 1], [0, 2, 3], [2, 3, 3]])
        assert sample_surface(TriMesh(SQUARE.vertices, faces), 1000, method="independent").faces.unique().tolist() == [1, 3]

    def test_unknown_method(self) -> None:
        with pytest.raises(RangeError, match=r"sample_surface: method must be one of 'systematic', 'independent'; got str 'poisson'"):
            sample_surface(box(), 10, method="poisson")  # pyright: ignore[reportArgumentType]


def test_faces_are_those_of_a_binary_search() -> None:
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 500):
        areas = torch.rand(count, generator=generator, dtype=torch.float64) ** 8  # some nearly empty
        areas[count // 3 : count // 2] = 0
        areas[-1] += 0.1
        ends = areas.cumsum(0)
        along = torch.cat((torch.rand(3000, generator=generator, dtype=torch.float64) * ends[-1], ends[:-1], torch.zeros(1).double()))
        assert torch.equal(faces_at(ends, along), torch.searchsorted(ends, along, right=True))
