"""Cells that a mesh touches: exact counts, halving, clipped integrals, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import FrameError, MeshError, RangeError, ShapeError
from voxgen.io import load_mesh
from voxgen.ops.grid_sets import parents
from voxgen.ops.surface_cells import CHANNELS, surface_cells, surface_channels, surface_grid, surface_moments
from voxgen.testing import shapes

BOX = {"origin": (-0.5, -0.5, -0.5)}
ONE = torch.tensor([[-0.4, -0.35, -0.3], [0.45, 0.1, -0.2], [0.05, 0.4, 0.42]], dtype=torch.float64)
FACE = torch.tensor([[0, 1, 2]])


def cells_of(mesh: TriMesh, resolution: int) -> torch.Tensor:
    return surface_cells(mesh.vertices, mesh.faces, **BOX, voxel_size=1 / resolution, resolution=resolution)


@pytest.mark.parametrize(("resolution", "count"), [(8, 64), (16, 202), (32, 719), (64, 2713), (128, 10552), (256, 41625)])
def test_counts_of_exact_arithmetic(resolution: int, count: int) -> None:
    """Closed test in exact integers; cells that only touch, such as (16, 15, 13) at 64, are among them."""
    cells = surface_cells(ONE, FACE, **BOX, voxel_size=1 / resolution, resolution=resolution)
    assert len(cells) == count
    if resolution == 16:
        assert cells[:3].tolist() == [[1, 2, 3], [1, 3, 3], [2, 2, 3]]
        assert cells[-1].tolist() == [15, 9, 5]
    if resolution == 64:
        assert [16, 15, 13] in cells.tolist()


def test_bunny_has_the_measured_cells_and_halving_gives_its_parents(data: Path) -> None:
    mesh = load_mesh(data / "bunny.obj")
    points = mesh.vertices.double()
    low, high = points.amin(0), points.amax(0)
    mesh = mesh.replace(vertices=((points - (low + high) / 2) / (high - low).max()).clamp(-0.5 + 1e-6, 0.5 - 1e-6))
    fine, coarse = surface_grid(mesh, 128), surface_grid(mesh, 64)
    assert (len(coarse), len(fine)) == (14027, 56195)
    assert torch.equal(parents(fine).coords, coarse.coords)


@pytest.mark.parametrize("mesh", [shapes.rotated(shapes.torus()), shapes.box(), shapes.wavy_sheet(), shapes.seam()])
def test_coarser_levels_are_shifts_of_the_finest(mesh: TriMesh) -> None:
    grid = surface_grid(mesh, 64)
    for resolution in (32, 16, 8):
        grid = parents(grid)
        assert torch.equal(grid.cells, cells_of(mesh, resolution))


def test_a_triangle_inside_one_cell_is_seen() -> None:
    tiny = ONE * 1e-3 + 0.03
    assert surface_cells(tiny, FACE, **BOX, voxel_size=1 / 8, resolution=8).tolist() == [[4, 4, 4]]


def test_surface_in_a_grid_plane_touches_both_sides_and_ends_at_the_box() -> None:
    full = shapes.box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
    assert len(cells_of(full, 8)) == 8**3 - 6**3
    half = shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25))
    assert len(cells_of(half, 8)) == 6**3 - 2**3


def test_areas_add_up_to_the_surface_and_centroids_lie_on_it() -> None:
    mesh = shapes.rotated(shapes.torus())
    found = surface_moments(mesh.vertices, mesh.faces, **BOX, voxel_size=1 / 32, resolution=32)
    assert float(found.area.double().sum()) / 32**2 == pytest.approx(float(mesh.face_areas().sum()), rel=1e-5)
    assert bool(((found.centroid >= 0) & (found.centroid <= 1)).all())
    assert found.normal_outer[:, :3].sum(1) == pytest.approx(torch.ones(len(found.cells)), abs=1e-5)


def test_plane_gives_its_own_foot_point() -> None:
    """For a plane, centroid − centre seen along the normal is the plane's distance, whatever part of the cell it cuts."""
    normal = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    u = torch.tensor([0.8, -0.6, 0.0], dtype=torch.float64)
    v = torch.linalg.cross(normal, u)
    square = torch.stack((-u - v, u - v, u + v, -u + v)) * 0.2 + 0.013
    mesh = TriMesh(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    x = surface_channels(mesh, 16)
    centre = (x.grid.cells.double() + 0.5) / 16 - 0.5
    distance = ((0.013 - centre) @ normal * 16)[:, None] * normal
    assert x.channels == CHANNELS
    assert (x.feats[:, 3:6] - distance).abs().max() < 1e-5  # float32 results of float64 integrals


def test_cells_that_are_touched_at_their_boundary_have_a_point_and_a_normal() -> None:
    flat = TriMesh(
        torch.tensor([[0.25, 0.25, 0.0], [0.5, 0.25, 0.0], [0.25, 0.5, 0.0]]) - 0.5, torch.tensor([[0, 1, 2]])
    )  # corners on corners of cells
    found = surface_moments(flat.vertices, flat.faces, **BOX, voxel_size=1 / 4, resolution=4)
    bare = found.area == 0
    assert bool(bare.any())
    assert bool(~bare.all())
    assert found.normal_outer[bare].tolist() == [[0, 0, 1, 0, 0, 0]] * int(bare.sum())
    assert found.spread[bare].abs().max() == 0
    assert bool(((found.centroid[bare] >= 0) & (found.centroid[bare] <= 1)).all())


def test_moving_by_whole_cells_moves_the_cells() -> None:
    mesh = shapes.rotated(shapes.sphere(0.3, 2))
    shift = torch.tensor([2, -1, 1])
    moved = mesh.replace(vertices=(mesh.vertices.double() + shift / 32))
    a = surface_moments(mesh.vertices.double(), mesh.faces, **BOX, voxel_size=1 / 32, resolution=32)
    b = surface_moments(moved.vertices, moved.faces, **BOX, voxel_size=1 / 32, resolution=32)
    assert torch.equal(a.cells + shift.int(), b.cells)
    assert (a.channels() - b.channels()).abs().max() < 1e-5


def test_bad_input() -> None:
    kwargs = {**BOX, "voxel_size": 1 / 8, "resolution": 8}
    with pytest.raises(FrameError, match="inside the box"):
        surface_cells(ONE * 3, FACE, **kwargs)
    with pytest.raises(MeshError, match="finite"):
        surface_cells(torch.full((3, 3), float("nan")), FACE, **kwargs)
    with pytest.raises(MeshError, match="area"):
        surface_cells(torch.zeros(3, 3), FACE, **kwargs)
    with pytest.raises(MeshError):
        surface_cells(ONE, torch.zeros(0, 3, dtype=torch.int64), **kwargs)
    with pytest.raises(ShapeError):
        surface_cells(ONE[:, :2], FACE, **kwargs)
    with pytest.raises(RangeError):
        surface_cells(ONE, FACE, **BOX, voxel_size=-1, resolution=8)
