"""sharp_edges and sharp_edge_deviation on boxes, where everything is known, and on the CAD part."""

import math
from pathlib import Path

import pytest
import torch
import trimesh

from voxgen.core import TriMesh
from voxgen.core.errors import FrameError, MeshError, RangeError
from voxgen.metrics import sharp_edge_deviation, sharp_edges
from voxgen.testing.shapes import box, seam, sphere, split_apart


def lengths(mesh: TriMesh, edges: torch.Tensor) -> torch.Tensor:
    return (mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]]).norm(dim=1)


def test_edges_of_a_box() -> None:
    cube = box()
    edges = sharp_edges(cube)
    torch.testing.assert_close(lengths(cube, edges), torch.full((12,), 0.6))
    assert len(sharp_edges(cube, 89.9)) == 12
    assert len(sharp_edges(cube, 90.1)) == 0
    assert len(sharp_edges(cube, 0)) == 12  # diagonals bend by exactly 0


def test_seams_and_winding_do_not_matter() -> None:
    apart = split_apart(box())
    torch.testing.assert_close(lengths(apart, sharp_edges(apart)), torch.full((12,), 0.6))
    flipped = box().faces.clone()
    flipped[::3] = flipped[::3].flip(1)
    assert len(sharp_edges(box().replace(faces=flipped))) == 12
    assert len(sharp_edges(box().replace(faces=flipped), 90.1)) == 0


def test_what_is_no_sharp_edge() -> None:
    assert len(sharp_edges(sphere())) == 0
    assert sharp_edges(seam(3)).shape == (0, 2)  # an edge of three sheets, and borders
    folded = seam(2).replace(faces=torch.cat((seam(2).faces, torch.tensor([[0, 0, 1]]))))
    assert len(sharp_edges(folded)) == 0  # two pages in one plane; a degenerate face is no face


@pytest.mark.parametrize("fold", [10.0, 39.0, 41.0, 120.0, 179.0])
def test_angle_of_a_fold(fold: float) -> None:
    a = math.radians(fold)
    points = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 0], [-math.cos(a), math.sin(a), 0]], dtype=torch.float64)
    mesh = TriMesh(points, torch.tensor([[0, 1, 2], [1, 0, 3]]))
    assert len(sharp_edges(mesh, fold - 1e-6)) == 1
    assert len(sharp_edges(mesh, fold + 1e-6)) == 0
    assert len(sharp_edges(mesh)) == int(fold > 40)


def test_equal_meshes_do_not_deviate() -> None:
    d = sharp_edge_deviation(box(), box(), near=0.01, samples=500)
    assert (d.edges, d.length) == (12, pytest.approx(7.2, rel=1e-6))
    assert d.from_edges.max < 1e-12
    assert d.from_edges.count == 508  # and the eight corners
    assert d.near_vertices is not None
    assert (d.near_vertices.count, d.near_vertices.max) == (8, 0)
    assert "12 sharp edges" in str(d)


def test_smaller_box() -> None:
    reference, inner = box(), box((-0.28, -0.28, -0.28), (0.28, 0.28, 0.28))
    d = sharp_edge_deviation(reference, inner, near=0.04, samples=5000)
    # along an edge the two nearest faces are 0.02 away each; at a corner three are
    assert d.from_edges.percentiles[50] == pytest.approx(0.02 * math.sqrt(2), rel=1e-5)
    assert d.from_edges.max == pytest.approx(0.02 * math.sqrt(3), rel=1e-5)
    assert d.near_vertices is not None
    assert (d.near_vertices.count, d.near_vertices.max) == (8, pytest.approx(0.02, rel=1e-5))
    assert sharp_edge_deviation(reference, inner, near=0.028, samples=10).near_vertices is None  # 0.02 · √2 away


def test_unused_vertices_are_not_judged() -> None:
    spare = TriMesh(torch.cat((torch.tensor([[0.31, 0.3, 0.0]]), box().vertices)), box().faces + 1)
    d = sharp_edge_deviation(box(), spare, near=0.1, samples=10)
    assert d.near_vertices is not None
    assert d.near_vertices.count == 8


def test_cad_part(data: Path) -> None:
    loaded = trimesh.load_mesh(data / "fandisk.obj", process=False)
    part = TriMesh.from_arrays(loaded.vertices, loaded.faces)
    edges = sharp_edges(part)
    angles = trimesh.Trimesh(loaded.vertices.astype("f4"), loaded.faces, process=False).face_adjacency_angles
    assert len(edges) == int((angles > math.radians(40)).sum())
    d = sharp_edge_deviation(part, part, near=1e-3, samples=1000)
    assert d.from_edges.max < 1e-12
    assert d.near_vertices is not None
    assert d.near_vertices.count == len(edges.unique())


def test_bad_input() -> None:
    with pytest.raises(MeshError, match=r"no edge that bends by more than 40 degrees\. Lower the angle"):
        sharp_edge_deviation(sphere(), sphere(), near=0.1)
    with pytest.raises(RangeError, match="near must be a positive finite length"):
        sharp_edge_deviation(box(), box(), near=-1)
    with pytest.raises(RangeError, match=r"angle must lie in \[0, 180\) degrees"):
        sharp_edges(box(), 180)
    with pytest.raises(FrameError, match="one up axis"):
        sharp_edge_deviation(box(), box().replace(up="z"), near=0.1)
    with pytest.raises(MeshError, match="reconstruction: mesh must have at least one face"):
        sharp_edge_deviation(box(), TriMesh(torch.zeros(1, 3), torch.zeros(0, 3, dtype=torch.int32)), near=0.1)
