"""Distances near a mesh: exact against brute force and against libigl, complete, and refused for bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import FrameError, MeshError, RangeError
from voxgen.io import load_mesh
from voxgen.ops.distance_band import DistanceBand, distance_band, segment_band
from voxgen.ops.mesh_distance import closest_points
from voxgen.testing import shapes

UNIT: Any = (-0.5, -0.5, -0.5)


def band_of(mesh: TriMesh, resolution: int, band: float, **options: Any) -> DistanceBand:
    return distance_band(mesh.vertices, mesh.faces, origin=UNIT, voxel_size=1 / resolution, resolution=resolution, band=band, **options)


def test_closest_points_of_every_region_of_a_triangle() -> None:
    triangle = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 3, 0]], dtype=torch.float64)
    points = torch.tensor([[1.0, 1, 5], [-1, -2, 1], [6, -1, 0], [-1, 4, 2], [2, -3, 1], [-2, 1, 0], [4, 3, 0]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 1, 0], [0, 0, 0], [4, 0, 0], [0, 3, 0], [2, 0, 0], [0, 1, 0], [2.56, 1.08, 0]], dtype=torch.float64)
    torch.testing.assert_close(closest_points(points, triangle.expand(7, 3, 3)), expected)


def test_cells_are_exactly_those_within_the_band() -> None:
    """Against the analytic ball: a fine polyhedron inscribed in it is off by at most its sagitta."""
    radius, resolution, band = 0.35, 40, 3.0
    near = band_of(shapes.sphere(radius, 5), resolution, band)
    centers = (near.cells.double() + 0.5) / resolution - 0.5
    exact = (centers.norm(dim=1) - radius).abs() * resolution
    # the sides are 0.038 of the radius long: sagitta 0.038² / 8 · 14 cells, a bit more in the middle of a face
    assert float((near.distance - exact).abs().max()) < 0.005
    axis = torch.arange(resolution)
    everywhere = ((torch.cartesian_prod(axis, axis, axis).double() + 0.5) / resolution - 0.5).norm(dim=1) - radius
    certain = int((everywhere.abs() * resolution <= band - 0.005).sum())
    assert certain <= len(near.cells) <= int((everywhere.abs() * resolution <= band + 0.005).sum())


@pytest.mark.parametrize("name", ["bunny.obj", "fandisk.obj", "beetle.obj"])
def test_real_meshes_against_libigl(data: Path, name: str) -> None:
    import igl

    mesh = load_mesh(data / name)
    low, high = mesh.bounds()
    vertices = ((mesh.vertices.double() - (low + high) / 2) * (0.95 / float((high - low).max()))).float()
    near = band_of(TriMesh(vertices, mesh.faces), 96, 4.0)
    pick = torch.randperm(len(near.cells), generator=torch.Generator().manual_seed(0))[:10_000]
    points = ((near.cells[pick].double() + 0.5) / 96 - 0.5).numpy()
    squared, *_ = igl.point_mesh_squared_distance(points, vertices.double().numpy(), mesh.faces.long().numpy())
    np.testing.assert_allclose(near.distance[pick].numpy(), np.sqrt(squared) * 96, atol=1e-4)  # float32 vertices from the corner on
    corners = vertices.double()[mesh.faces[near.face[pick].long()].long()]
    on_face = closest_points(torch.from_numpy(points), corners)
    np.testing.assert_allclose((torch.from_numpy(points) - on_face).norm(dim=1) * 96, near.distance[pick], atol=1e-4)


def test_order_of_faces_and_shift_of_the_grid_change_nothing() -> None:
    mesh = shapes.rotated(shapes.torus(around=20, across=10))
    near = band_of(mesh, 24, 2.0)
    assert bool((near.cells.long() @ torch.tensor([24**2, 24, 1])).diff().gt(0).all())
    turned = band_of(mesh.replace(faces=mesh.faces.flip(0)), 24, 2.0)
    assert torch.equal(near.cells, turned.cells)
    assert torch.equal(near.distance, turned.distance)
    moved = distance_band(mesh.vertices, mesh.faces, origin=[-0.5 - 3 / 24] * 3, voxel_size=1 / 24, resolution=30, band=2.0)
    assert torch.equal(near.cells + 3, moved.cells)
    torch.testing.assert_close(near.distance, moved.distance, atol=1e-4, rtol=0)


def test_bad_input() -> None:
    mesh = shapes.box()
    for band in (0, -1.0, math.inf, math.nan, "4"):
        with pytest.raises(RangeError, match="band must be a positive number of cells"):
            band_of(mesh, 8, band)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MeshError, match="at least one face"):
        band_of(mesh.replace(faces=mesh.faces[:0]), 8, 1.0)
    with pytest.raises(FrameError, match="must lie inside the box"):
        band_of(mesh.replace(vertices=mesh.vertices * 3), 8, 1.0)


def test_segments() -> None:
    ends = torch.tensor([[[2.5, 2.5, 2.5], [9.5, 2.5, 2.5]], [[-30.0, 6.0, 6.0], [40.0, 6.0, 6.0]], [[11.5, 11.5, 11.5]] * 2])
    near = segment_band(ends, resolution=12, band=1.2)
    assert torch.equal(near.cells.amax(0), torch.tensor([11, 11, 11], dtype=torch.int32))
    center = near.cells.double() + 0.5
    start, end = ends.double()[near.face.long()].unbind(1)
    side = end - start
    share = ((center - start) * side).sum(1, keepdim=True) / (side * side).sum(1, keepdim=True).clamp_min(1e-9)
    torch.testing.assert_close((center - start - share.clamp(0, 1) * side).norm(dim=1).float(), near.distance)
    first = near.cells[near.face == 0]
    assert len(first) == 8 * 5 + 2  # each cell on the line with its four neighbours, and one beyond either end
    assert torch.equal(near.cells, segment_band(ends, resolution=12, band=1.2, backend="reference").cells)
    for backend in ("numba", "reference"):
        assert len(segment_band(ends[:0], resolution=12, band=1.2, backend=backend).cells) == 0
    with pytest.raises(RangeError, match="ends must be finite"):
        segment_band(ends * math.nan, resolution=12, band=1.2)
