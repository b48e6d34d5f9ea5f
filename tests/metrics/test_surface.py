"""Distances between surfaces against closed forms, brute force and each other."""

import math

import numpy as np
import pytest
import torch
import trimesh

from voxgen.core import TriMesh
from voxgen.core.errors import DtypeError, FrameError, MeshError, RangeError, ShapeError
from voxgen.metrics import (
    DistanceSummary,
    chamfer_distance,
    compare_surfaces,
    f_score,
    mesh_distance,
    normal_consistency,
    sample_surface,
)
from voxgen.testing.shapes import bowl, box, merged, rotated, sphere, torus, wavy_sheet

SQUARE = TriMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2], [0, 2, 3]]))


def moved(mesh: TriMesh, *shift: float) -> TriMesh:
    return mesh.replace(vertices=mesh.vertices + torch.tensor(shift).to(mesh.vertices))


def test_equal_surfaces_have_distance_zero() -> None:
    # float64 positions inside the unit cube carry 1e-16; a nearest point is a few products of them
    c = compare_surfaces(sphere(), sphere(), samples=2000)
    assert c.mesh_distance().max < 1e-14
    assert c.chamfer_distance().l2 < 1e-28
    assert c.f_score(1e-12).f == 1
    # at an edge either face may be the nearest one: neighbours of this icosphere differ by at most 9 degrees
    assert c.normal_consistency().signed > math.cos(math.radians(9))


def test_concentric_spheres() -> None:
    # chords lie inside the sphere by at most radius · (0.65 / 2⁴)² / 2 = 3.3e-4
    c = compare_surfaces(sphere(0.4, 4), sphere(0.3, 4), samples=2000)
    assert c.chamfer_distance().l1 == pytest.approx(0.1, abs=4e-4)
    assert c.chamfer_distance().l2 == pytest.approx(0.01, abs=8e-5)
    assert c.mesh_distance().max == pytest.approx(0.1, abs=4e-4)
    assert c.mesh_distance().rms == pytest.approx(0.1, abs=4e-4)
    assert c.f_score(0.1004).f == 1
    assert c.f_score(0.0995).f == 0
    assert c.normal_consistency().signed > 0.998
    inside_out = sphere(0.3, 4)
    n = normal_consistency(sphere(0.4, 4), inside_out.replace(faces=inside_out.faces.flip(1)), samples=2000)
    assert n.signed < -0.998
    assert n.absolute > 0.998


def test_square_moved_along_its_normal() -> None:
    d = mesh_distance(SQUARE, moved(SQUARE, 0, 0, 0.25), samples=1000, percentiles=(0, 50, 100))
    for side in (d.a_to_b, d.b_to_a):
        values = [side.mean, side.rms, side.max, *side.percentiles.values()]
        assert values == pytest.approx([0.25] * 6, abs=1e-15)
        assert side.count == 1000


def test_square_moved_sideways() -> None:
    # the part that sticks out is s wide and its distance grows from 0 to s. Sampling error at 20,000 points: below 5e-4,
    # as test_sample_surface shows for such moments at 10,000
    s, t = 0.4, 0.15
    c = compare_surfaces(SQUARE, moved(SQUARE, s, 0, 0), samples=20_000)
    d = c.mesh_distance((50, 80))
    assert c.chamfer_distance().l1 == pytest.approx(s**2 / 2, abs=5e-4)
    assert c.chamfer_distance().l2 == pytest.approx(s**3 / 3, abs=5e-4)
    assert d.max == pytest.approx(s, abs=2e-3)
    assert d.max <= s
    assert d.a_to_b.percentiles[50] < 1e-12
    assert d.a_to_b.percentiles[80] == pytest.approx(0.2, abs=1e-3)
    f = c.f_score(t)
    assert (f.precision, f.recall, f.f) == pytest.approx((1 - s + t,) * 3, abs=1e-3)


def test_precision_and_recall_are_told_apart() -> None:
    both = merged(SQUARE, moved(SQUARE, 0, 0, 1))
    f = f_score(both, SQUARE, 0.1, samples=1000)
    assert (f.precision, f.recall) == (0.5, 1.0)
    assert f.f == pytest.approx(2 / 3)
    assert f_score(SQUARE, both, 0.1, samples=1000).precision == 1


def test_hidden_surface_counts() -> None:
    d = mesh_distance(merged(box(), sphere(0.1)), box(), samples=5000)
    # farthest from all sides are the ball's points on the diagonals; 270 samples on it, 0.02 apart, see them to 0.02² / 0.1
    assert d.a_to_b.max == pytest.approx(0.3 - 0.1 / math.sqrt(3), abs=4e-3)
    assert d.b_to_a.max < 1e-7


def test_distance_equal_to_the_threshold_is_within() -> None:
    assert f_score(SQUARE, moved(SQUARE, 0, 0, 0.25), 0.25, samples=100).f == 1


def test_symmetry() -> None:
    a, b = rotated(torus()), bowl()
    one, other = compare_surfaces(a, b, samples=500), compare_surfaces(b, a, samples=500)
    assert torch.equal(one.a_to_b.distances, other.b_to_a.distances)
    assert one.chamfer_distance().l1 == other.chamfer_distance().l1
    assert one.normal_consistency().absolute == other.normal_consistency().absolute
    assert one.f_score(0.05).f == other.f_score(0.05).f


def test_brute_force() -> None:
    a, b = rotated(box()), wavy_sheet(7)
    c = compare_surfaces(a, b, samples=300)
    target = trimesh.Trimesh(b.vertices.double().numpy(), b.faces.numpy(), process=False)
    _, distance, face = trimesh.proximity.closest_point_naive(target, c.a_to_b.points.numpy())
    np.testing.assert_allclose(c.a_to_b.distances.numpy(), distance, rtol=1e-9)
    assert c.a_to_b.cosines is not None
    normals = b.replace(vertices=b.vertices.double()).face_normals()[torch.from_numpy(face)]
    samples = sample_surface(a.replace(vertices=a.vertices.double()), 300)
    torch.testing.assert_close(samples.points, c.a_to_b.points, atol=1e-15, rtol=0)
    # near an edge of b, rounding may pick the other face: leave out the few samples whose nearest point lies on one
    same = ((samples.normals * normals).sum(1) - c.a_to_b.cosines).abs() < 1e-9
    assert float(same.double().mean()) > 0.6


def test_one_direction_against_a_single_triangle() -> None:
    # nearest feature: face, edge, corner
    triangle = TriMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    points = torch.tensor([[0.2, 0.2, 0.5], [0.5, -2, 0], [-3, -4, 0], [1, 1, 0]])
    c = compare_surfaces(points, triangle, samples=10)
    assert c.a_to_b.distances.tolist() == pytest.approx([0.5, 2, 5, math.sqrt(0.5)])
    assert c.a_to_b.cosines is None
    with pytest.raises(MeshError, match="a set of points has no normals"):
        c.normal_consistency()


def test_degenerate_faces_are_surface_without_normal() -> None:
    needle = TriMesh(torch.cat((SQUARE.vertices, torch.tensor([[5.0, 0, 0]]).double())), torch.tensor([[0, 1, 2], [0, 2, 3], [1, 4, 4]]))
    c = compare_surfaces(torch.tensor([[5.0, 0, 1]]), needle, samples=10)
    assert c.a_to_b.distances.tolist() == pytest.approx([1])
    over = moved(SQUARE, 4, 0, 1)
    c = compare_surfaces(over, needle, samples=100)
    assert c.a_to_b.cosines is not None
    assert bool(c.a_to_b.cosines.isnan().all())  # the whole square is nearest to the needle
    assert math.isnan(c.normal_consistency().signed)


def test_point_to_point() -> None:
    a = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    b = torch.tensor([[0.0, 0, 3], [0, 4, 0], [1, 0, 1]])
    c = chamfer_distance(a, b)
    # a to b: √2 and 1; b to a: 3, 4, 1
    assert c.l1_directed == pytest.approx(((math.sqrt(2) + 1) / 2, 8 / 3))
    assert c.l2_directed == pytest.approx((3 / 2, 26 / 3))
    assert c.l1 == pytest.approx(sum(c.l1_directed) / 2)
    assert c.l2 == pytest.approx(sum(c.l2_directed) / 2)
    same = chamfer_distance(a, b, to="points")
    assert same == c


def test_sampled_version_has_a_noise_floor() -> None:
    n = 20_000
    sampled = compare_surfaces(SQUARE, SQUARE, samples=n, to="points")
    assert 0.3 / math.sqrt(n) < sampled.chamfer_distance().l1 < 0.6 / math.sqrt(n)
    assert sampled.normal_consistency().signed == pytest.approx(1)
    # a known distance much larger than the spacing of the samples comes out with it in quadrature:
    # √(0.25² + spacing²) − 0.25 < (1 / √n)² / 0.5 = 1e-4
    far = chamfer_distance(SQUARE, moved(SQUARE, 0, 0, 0.25), samples=n, to="points")
    assert far.l1 == pytest.approx(0.25, abs=1e-4)
    assert far.l1 > 0.25


def test_percentiles_are_those_of_numpy() -> None:
    values = torch.rand(1237, dtype=torch.float64)
    ranks = (0, 12.5, 50, 99.9, 100)
    found = DistanceSummary.of(values, ranks)
    assert list(found.percentiles.values()) == pytest.approx(np.percentile(values.numpy(), ranks).tolist(), rel=1e-12)
    assert str(found).startswith("mean 0.")
    one = DistanceSummary.of(values[:1], (50,))
    assert one.percentiles[50] == one.mean == one.max
    with pytest.raises(RangeError, match=r"\[0, 100\]"):
        DistanceSummary.of(values, (101,))
    with pytest.raises(RangeError, match="at least one distance"):
        DistanceSummary.of(values[:0])


def test_dtypes_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    a = sphere()
    double = a.replace(vertices=a.vertices.double())
    quiet = chamfer_distance(a, bowl(), samples=200)
    assert "point" not in capsys.readouterr().err
    assert chamfer_distance(double, bowl(), samples=200, progress=True) == quiet
    assert "b to a" in capsys.readouterr().err


def test_bad_input() -> None:
    a, empty = box(), TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
    with pytest.raises(FrameError, match=r"one up axis; got 'y' and 'z'.*with_up\('y'\)"):
        mesh_distance(a, a.replace(up="z"))
    with pytest.raises(MeshError, match="compare_surfaces: b: mesh must have at least one face"):
        chamfer_distance(a, empty)
    with pytest.raises(MeshError, match="a face with area"):
        chamfer_distance(a, a.replace(faces=torch.tensor([[0, 0, 1]])))
    with pytest.raises(MeshError, match="at least one point"):
        chamfer_distance(torch.zeros(0, 3), a)
    with pytest.raises(RangeError, match=r"a must be finite.*row 1"):
        chamfer_distance(torch.tensor([[0.0, 0, 0], [0, math.inf, 0]]), a)
    with pytest.raises(MeshError, match="vertices must be finite"):
        chamfer_distance(moved(a, math.nan, 0, 0), a)
    with pytest.raises(ShapeError, match=r"a must be \(n, 3\) float32 or float64; got \(5, 2\)"):
        chamfer_distance(torch.rand(5, 2), a)
    with pytest.raises(DtypeError, match="b must be a TriMesh or a tensor of points"):
        chamfer_distance(a, "mesh.glb")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="threshold must be a positive finite length"):
        f_score(a, a, 0)
    with pytest.raises(RangeError, match="threshold must be a positive finite length"):
        f_score(a, a, math.inf)
    with pytest.raises(RangeError, match="to must be one of 'surface', 'points'"):
        chamfer_distance(a, a, to="samples")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="samples must be at least 1"):
        chamfer_distance(torch.rand(3, 3), torch.rand(3, 3), samples=0)
