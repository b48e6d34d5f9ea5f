"""Sparse marching cubes: closed, oriented, manifold surfaces at the right place; the original's frame; gradients; bad input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, RangeError, ShapeError
from voxgen.metrics import MeshReport, mesh_report
from voxgen.ops.marching_cubes import IsoSurface, marching_cubes
from voxgen.ops.marching_cubes._table import CORNERS, EDGES, FACES, ambiguous_faces, cube_triangles, table
from voxgen.testing.grids import full_grid, random_grid
from voxgen.testing.shells import ball, hollow_ball, ring

GOLDEN = Path(__file__).parents[1] / "golden"


def report_of(surface: IsoSurface, weld: bool = False) -> MeshReport:
    """Topology of the buffers as they are: a vertex on a cell's centre is one for each edge that ends there."""
    return mesh_report(TriMesh(surface.vertices.detach(), surface.faces), weld=weld)


def assert_closed(report: MeshReport) -> None:
    assert report.is_closed
    assert report.is_oriented
    assert report.nonmanifold_edges == 0
    assert report.nonmanifold_vertices == 0
    assert report.duplicate_faces == 0
    assert report.degenerate_faces == 0


def points_of(grid: VoxelGrid) -> Tensor:
    return grid.frame.centers(grid.cells, torch.float64)


def test_table_covers_every_case_once() -> None:
    known = table()
    assert known.triangles.shape == (3204, 3)
    for case in range(256):
        open_faces = ambiguous_faces(case)
        assert known.ambiguous[case] == open_faces
        for joined in range(64):
            rows = known.triangles[known.starts[64 * case + joined] : known.starts[64 * case + joined + 1]]
            assert len(rows) == (len(cube_triangles(case, joined)) if joined & ~open_faces == 0 else 0)
            crossed = [edge for edge, (a, b) in enumerate(EDGES) if (case >> a ^ case >> b) & 1]
            if joined & ~open_faces == 0:
                assert sorted(set(rows.ravel().tolist())) == crossed


def test_border_of_each_case_lies_in_the_faces_and_follows_the_decision() -> None:
    """Sides that have one triangle are the segments of the faces: on an ambiguous face two, around the corners that are apart."""
    for case in range(256):
        open_faces = ambiguous_faces(case)
        for joined in range(64):
            if joined & ~open_faces:
                continue
            sides = Counter(side for a, b, c in cube_triangles(case, joined) for side in ((a, b), (b, c), (c, a)))
            assert all(count == 1 for count in sides.values())
            border = {side for side in sides if side[::-1] not in sides}
            for f, corners in enumerate(FACES):
                members = {e for e, ends in enumerate(EDGES) if set(ends) <= set(corners)}
                here = [side for side in border if set(side) <= members]
                crossed = {e for e in members if (case >> EDGES[e][0] ^ case >> EDGES[e][1]) & 1}
                assert sorted(e for side in here for e in side) == sorted(crossed)
                if open_faces >> f & 1:
                    apart = [k for k in corners if (case >> k & 1) != (joined >> f & 1)]
                    for side in here:
                        (shared,) = set(EDGES[side[0]]) & set(EDGES[side[1]])
                        assert shared in apart


def test_one_inside_corner_is_cut_off_with_the_normal_outwards() -> None:
    middles = np.array([[(a + b) / 2 for a, b in zip(CORNERS[i], CORNERS[j], strict=True)] for i, j in EDGES])
    for k in range(8):
        ((a, b, c),) = cube_triangles(1 << k, 0)
        normal = np.cross(middles[b] - middles[a], middles[c] - middles[a])
        away = np.array([0.5, 0.5, 0.5]) - CORNERS[k]
        assert (normal * away > 0).all()


@pytest.mark.parametrize(("shape", "euler"), [("ball", 2), ("ring", 0), ("hollow_ball", 2)])
def test_solids_are_closed_with_the_right_euler_number(shape: str, euler: int) -> None:
    distance = {"ball": ball, "ring": ring, "hollow_ball": hollow_ball}[shape]
    grid = full_grid(40)
    values = distance(points_of(grid))
    near = values.abs() < 2.5 / 40
    surface = marching_cubes(grid.select(near), values[near])
    report = report_of(surface)
    assert_closed(report)
    assert report.euler_number == euler
    assert report.components == (2 if shape == "hollow_ball" else 1)
    assert report.volume is not None
    assert report.volume > 0
    # between two samples of a distance with curvature k the root is off by at most k h² / 8: 0.04 of a cell for the ring's tube
    worst = float(distance(surface.vertices.double()).abs().max()) * 40
    assert worst < (0.05 if shape == "ball" else 0.08)


def test_ball_has_volume_and_area_of_a_ball() -> None:
    grid = full_grid(48)
    report = report_of(marching_cubes(grid, ball(points_of(grid), 0.4)))
    assert report.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=2e-3)  # inscribed polyhedron: short by O(h²)
    assert report.area == pytest.approx(4 * np.pi * 0.4**2, rel=2e-3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    side=st.integers(1, 7),
    level=st.sampled_from([0.0, 0.3, -0.5]),
    ties=st.booleans(),
    outside=st.sampled_from([3.0, -3.0, 0.0]),
)
def test_random_fields_give_closed_manifolds(seed: int, side: int, level: float, ties: bool, outside: float) -> None:
    """White noise has every ambiguous case; missing cells and the border of the grid are closed by `outside`."""
    generator = torch.Generator().manual_seed(seed)
    grid = full_grid((side, side + 1, 6))
    grid = grid.select(torch.rand(len(grid), generator=generator) < 0.8)
    values = torch.randn(len(grid), generator=generator, dtype=torch.float64)
    if ties:
        values = (values * 2).round() / 2
    surface = marching_cubes(grid, values, level, outside=outside)
    if len(surface.faces):
        assert_closed(report_of(surface))
        assert bool((surface.share >= 0).all())
        assert bool((surface.share <= 1).all())


def test_border_lies_only_where_cells_are_missing() -> None:
    grid = random_grid((1500,), 13)
    surface = marching_cubes(grid, torch.randn(len(grid), generator=torch.Generator().manual_seed(1)))
    sides = Counter(tuple(sorted(s)) for a, b, c in surface.faces.tolist() for s in ((a, b), (b, c), (c, a)))
    assert max(sides.values()) == 2
    rim = torch.tensor([side for side, count in sides.items() if count == 1])
    assert len(rim) > 0
    cells = grid.cells.long()
    for pair in rim.tolist():
        ends = cells[surface.edges[pair].long()].reshape(-1, 3)
        low, high = ends.amin(0), ends.amax(0)
        (axis,) = (high - low == 0).nonzero()[:, 0].tolist()  # a face of a cube: two cells wide along two axes
        beside = []
        for step in (-1, 1):
            corners = torch.cartesian_prod(*[torch.arange(int(a), int(b) + 1) for a, b in zip(low, high, strict=True)])
            corners[:, axis] += step
            rows = grid.rows_of(torch.nn.functional.pad(corners, (1, 0)).int())
            beside.append(bool((rows >= 0).all()))
        assert beside.count(True) == 1


def test_negation_turns_the_surface_inside_out() -> None:
    grid = full_grid(8)
    values = torch.randn(len(grid), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one, other = marching_cubes(grid, values, outside=5.0), marching_cubes(grid, -values, outside=-5.0)
    torch.testing.assert_close(one.vertices, other.vertices)
    a, b = report_of(one), report_of(other)
    assert a.volume is not None
    assert b.volume is not None
    # the loops are the same, and are cut by the same diagonals except in a few cases, so the volumes almost cancel
    assert a.volume == pytest.approx(-b.volume, rel=0.05)
    assert a.euler_number == b.euler_number


def test_samples_are_alone_in_any_batch() -> None:
    grid = random_grid((400, 0, 700, 1), 10)
    values = torch.randn(len(grid), generator=torch.Generator().manual_seed(2))
    whole = marching_cubes(grid, values, 0.1, outside=2.0)
    parts = torch.split(values, (grid.offsets[1:] - grid.offsets[:-1]).tolist())
    for sample, part in enumerate(parts):
        alone = marching_cubes(grid.sample(sample), part, 0.1, outside=2.0)
        v0, v1 = whole.vertex_offsets[sample : sample + 2].tolist()
        f0, f1 = whole.face_offsets[sample : sample + 2].tolist()
        assert torch.equal(whole.vertices[v0:v1], alone.vertices)
        assert torch.equal(whole.faces[f0:f1] - v0, alone.faces)


def test_frame_places_the_vertices() -> None:
    grid = full_grid((3, 1, 1))
    grid = VoxelGrid(grid.coords, grid.resolution, 1, Frame((1.0, 2.0, 3.0), (0.5, 1.0, 2.0)))
    surface = marching_cubes(grid, torch.tensor([3.0, -1.0, 3.0]), outside=1.0)
    # from the centre of cell 1 at (1.75, 2.5, 4): a quarter of the way to its neighbours in x, half of it to missing ones
    expected = torch.tensor([[1.75, 2.5, 3.0], [1.625, 2.5, 4.0], [1.75, 2.0, 4.0], [1.75, 3.0, 4.0], [1.875, 2.5, 4.0], [1.75, 2.5, 5.0]])
    found = surface.vertices[np.lexsort(surface.vertices.numpy().T[[1, 0, 2]])]
    torch.testing.assert_close(found, expected)
    assert_closed(report_of(surface))


def test_attributes_follow_the_vertices() -> None:
    grid = full_grid(6)
    values = ball(points_of(grid), 0.3)
    surface = marching_cubes(grid, values)
    torch.testing.assert_close(surface.at_vertices(points_of(grid)), surface.vertices)
    one = grid.select(values == values.min())
    surface = marching_cubes(one, torch.tensor([-1.0], dtype=torch.float64), outside=1.0)
    assert set(surface.edges.ravel().tolist()) == {-1, 0}
    torch.testing.assert_close(surface.at_vertices(torch.tensor([[7.0]])), torch.full((6, 1), 7.0))


def test_gradient_of_vertices_is_that_of_the_formula() -> None:
    grid = random_grid((150,), 7)
    values = torch.randn(len(grid), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    values = values.sign() * (0.2 + values.abs())  # far from a change of sign under finite differences
    for outside in (None, 1.5):

        def positions(v: Tensor, outside: float | None = outside) -> Tensor:
            return marching_cubes(grid, v, 0.05, outside=outside).vertices

        assert torch.autograd.gradcheck(positions, values.requires_grad_())


def test_volume_shrinks_where_values_grow() -> None:
    grid = full_grid(16)
    values = ball(points_of(grid), 0.3).requires_grad_()
    surface = marching_cubes(grid, values)
    a, b, c = surface.vertices[surface.faces.long()].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    (gradient,) = torch.autograd.grad(volume, values)
    assert float(gradient.max()) <= 1e-12
    # moving the whole field by d moves the surface by −d: the derivative of the volume is minus the area
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2
    assert float(gradient.sum()) == pytest.approx(-float(area.detach()), rel=0.02)


Golden = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def golden() -> Golden:
    """Marching cubes of Direct3D-S2 on a dense volume with +1 at missing cells."""
    about = json.loads((GOLDEN / "direct3d_s2_conventions.json").read_text())
    with np.load(GOLDEN / "direct3d_s2_conventions.npz") as file:
        return about["marched"], {key: file[key] for key in file}


def as_original(golden: Golden) -> IsoSurface:
    # vertex = index / resolution · 2 − 1, so the centre of cell i lies there
    low, size = -1 - 1 / 32, 2 / 32
    frame = Frame((low, low, low), (size, size, size))
    grid, order = VoxelGrid.build(torch.from_numpy(golden[1]["in/band_coords"]), resolution=32, frame=frame)
    values = torch.from_numpy(golden[1]["in/band_values"])[order, 0]
    return marching_cubes(grid, values, 0.2, outside=1.0, beyond_grid=False)


def test_counts_and_measures_of_the_original(golden: Golden) -> None:
    expected, report = golden[0], report_of(as_original(golden))
    assert_closed(report)
    assert (report.vertices, report.faces, report.components) == (expected["vertices"], expected["faces"], expected["bodies"])
    np.testing.assert_allclose(report.bounds, expected["bounds"], atol=1e-6)
    # the diagonals of polygons are a matter of choice, which shows on the jagged inner surface: measured 2.8e-3 and 1e-3
    assert report.area == pytest.approx(expected["area"], rel=5e-3)
    assert report.volume == pytest.approx(expected["signed_volume"], rel=5e-3)


def test_vertices_of_the_original(golden: Golden) -> None:
    wanted = torch.from_numpy(golden[1]["out/marched_vertices_every_13"])
    found = as_original(golden).vertices
    assert float(torch.cdist(wanted, found, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max()) < 1e-6


def test_bad_input() -> None:
    grid = full_grid(3)
    values = torch.zeros(27)
    with pytest.raises(ShapeError, match=r"marching_cubes: values must be \(27,\)"):
        marching_cubes(grid, values[:26])
    with pytest.raises(ShapeError, match="One value a cell"):
        marching_cubes(grid, values[:, None])
    with pytest.raises(DtypeError, match="values"):
        marching_cubes(grid, values.int())
    with pytest.raises(DeviceError, match="one device"):
        marching_cubes(grid, values.to("meta"))
    with pytest.raises(RangeError, match="finite; 1 of 27 rows"):
        marching_cubes(grid, values.index_fill(0, torch.tensor([4]), torch.nan))
    with pytest.raises(RangeError, match="level must be finite"):
        marching_cubes(grid, values, float("inf"))
    with pytest.raises(RangeError, match="outside must be finite"):
        marching_cubes(grid, values, outside=float("nan"))
    with pytest.raises(DtypeError, match="level must be a number"):
        marching_cubes(grid, values, "0")  # pyright: ignore[reportArgumentType]
    large = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=65536, batch_size=1)
    with pytest.raises(RangeError, match="at most 65534"):
        marching_cubes(large, torch.zeros(1), outside=1.0)
    assert len(marching_cubes(large, torch.zeros(1), outside=1.0, beyond_grid=False).faces) == 0


def test_non_contiguous_values_and_half_types() -> None:
    grid = full_grid(10)
    values = ball(points_of(grid), 0.3).float()
    expected = marching_cubes(grid, values)
    strided = torch.stack((values, values), 1)[:, 0]
    assert torch.equal(marching_cubes(grid, strided).vertices, expected.vertices)
    half = marching_cubes(grid, values.half())
    assert half.vertices.dtype == torch.float32
    assert torch.equal(half.vertices, marching_cubes(grid, values.half().float()).vertices)
