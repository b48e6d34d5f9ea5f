"""mesh_report against closed forms, against trimesh on real meshes, and on every kind of bad mesh."""

import math
from pathlib import Path

import pytest
import torch
import trimesh

from voxgen.core import TriMesh
from voxgen.core.errors import MeshError
from voxgen.metrics import mesh_report
from voxgen.testing.shapes import bowl, box, merged, mobius, rotated, seam, sphere, split_apart, torus, wavy_sheet

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def test_box() -> None:
    r = mesh_report(box())
    assert (r.vertices, r.edges, r.faces, r.euler_number, r.genus) == (8, 18, 12, 2, 0)
    assert (r.components, r.boundary_edges, r.boundary_loops, r.nonmanifold_edges, r.inconsistent_edges) == (1, 0, 0, 0, 0)
    assert (r.degenerate_faces, r.flat_faces, r.duplicate_faces, r.nonmanifold_vertices) == (0, 0, 0, 0)
    assert r.is_closed
    assert r.is_oriented
    assert r.area == pytest.approx(6 * 0.36, rel=1e-6)  # ±0.3 is rounded to float32
    assert r.volume == pytest.approx(0.216, rel=1e-6)
    assert r.bounds == (pytest.approx((-0.3,) * 3), pytest.approx((0.3,) * 3))


def test_curved_shapes() -> None:
    ball, ring = mesh_report(sphere(0.4, 4)), mesh_report(torus())
    assert (ball.euler_number, ball.genus, ring.euler_number, ring.genus) == (2, 0, 0, 1)
    # chords lie inside: relative error of order (edge angle)² / 4 < 2e-3 for the icosphere, 4e-3 for 32 steps around a tube
    assert ball.area == pytest.approx(4 * math.pi * 0.16, rel=3e-3)
    assert ball.volume == pytest.approx(4 / 3 * math.pi * 0.064, rel=3e-3)
    assert ring.volume == pytest.approx(2 * math.pi**2 * 0.3 * 0.12**2, rel=1e-2)


def test_bowl_has_one_loop_of_known_length() -> None:
    r = mesh_report(bowl(radius=0.4, opening=0.6, around=48))
    side = 2 * 0.4 * math.sin(0.6) * math.sin(math.pi / 48)
    assert (r.boundary_edges, r.boundary_loops, r.euler_number, r.genus) == (48, 1, 1, None)
    assert r.boundary_length == pytest.approx(48 * side, rel=1e-6)
    assert not r.is_closed
    assert r.is_oriented
    assert r.volume is None


def test_mobius_strip_cannot_be_wound_consistently() -> None:
    strip = mobius()
    r = mesh_report(strip)
    assert (r.euler_number, r.boundary_loops, r.components) == (0, 1, 1)
    assert r.inconsistent_edges == 1  # as built: all of it at the turn
    assert not r.is_oriented
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        flip = torch.rand(strip.num_faces, 1, generator=generator) < 0.5
        flipped = mesh_report(strip.replace(faces=torch.where(flip, strip.faces.flip(1), strip.faces)))
        assert flipped.inconsistent_edges % 2 == 1  # a flip of a face of two inner edges changes the number by -2, 0 or 2
        assert flipped.boundary_length == pytest.approx(r.boundary_length, rel=1e-12)


def test_components() -> None:
    r = mesh_report(merged(torus(), torus(center=(2, 0, 0)), sphere()))
    assert (r.components, r.euler_number, r.genus, r.is_closed) == (3, 2, 2, True)


def test_seam_of_three_sheets() -> None:
    r = mesh_report(seam(3))
    assert (r.nonmanifold_edges, r.boundary_edges, r.components, r.inconsistent_edges) == (1, 9, 1, 0)
    assert not r.is_oriented  # three faces cannot balance
    assert r.nonmanifold_vertices == 0  # all faces at each vertex hang together
    assert r.boundary_length == pytest.approx(9 * 0.4, rel=1e-6)


def test_boxes_that_share_an_edge_still_have_a_volume() -> None:
    r = mesh_report(merged(box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), box((1.0, 1.0, 0.0), (2.0, 2.0, 1.0))))
    assert (r.nonmanifold_edges, r.is_closed, r.is_oriented, r.genus) == (1, True, True, None)
    assert r.volume == pytest.approx(2)


def test_tetrahedra_that_share_a_vertex() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    # the second is the point mirror of the first, so its faces are turned over
    second = torch.tensor([0, 4, 5, 6])[TETRAHEDRON].flip(1)
    r = mesh_report(TriMesh(points, torch.cat((TETRAHEDRON, second))))
    assert (r.nonmanifold_vertices, r.components, r.euler_number, r.genus, r.nonmanifold_edges) == (1, 2, 3, 0, 0)
    assert r.volume == pytest.approx(1 / 3)


def test_loops_that_touch_in_a_vertex_are_two() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    r = mesh_report(TriMesh(points, torch.tensor([[0, 1, 2], [0, 3, 4]])))
    assert (r.boundary_loops, r.nonmanifold_vertices, r.components, r.boundary_edges) == (2, 1, 2, 6)


def test_inside_out_volume_is_negative_and_flipped_faces_are_found() -> None:
    cube = box()
    assert mesh_report(cube.replace(faces=cube.faces.flip(1))).volume == pytest.approx(-0.216, rel=1e-6)
    one_flipped = mesh_report(cube.replace(faces=torch.cat((cube.faces[:1].flip(1), cube.faces[1:]))))
    assert (one_flipped.inconsistent_edges, one_flipped.is_closed, one_flipped.is_oriented) == (3, True, False)
    assert one_flipped.volume is None
    assert one_flipped.genus is None


def test_volume_does_not_depend_on_where_the_mesh_lies() -> None:
    far = box().replace(vertices=box().vertices.double() + 1e6)
    # 1e6 + 0.3 keeps 10 digits after the point in float64; areas are of order 1
    assert mesh_report(far).volume == pytest.approx(0.216, rel=1e-6)


def test_weld() -> None:
    cube = split_apart(box())
    welded, plain = mesh_report(cube), mesh_report(cube, weld=False)
    assert (welded.vertices, welded.stored_vertices, welded.is_closed, welded.components) == (8, 36, True, 1)
    assert (plain.vertices, plain.edges, plain.boundary_edges, plain.components, plain.is_closed) == (36, 36, 36, 12, False)
    # 12 edges of the cube and 6 diagonals, each with two separate sides
    assert plain.boundary_length == pytest.approx(24 * 0.6 + 12 * 0.6 * math.sqrt(2), rel=1e-6)


def test_degenerate_flat_and_duplicate_faces() -> None:
    cube = box()
    middle = torch.cat((cube.vertices, cube.vertices[:2].mean(0, keepdim=True)))
    extra = torch.tensor([[0, 0, 1], [3, 3, 3], [0, 8, 1], [1, 3, 0], [3, 1, 0], [0, 1, 3]])
    r = mesh_report(cube.replace(vertices=middle, faces=torch.cat((cube.faces.long(), extra))))
    assert (r.faces, r.degenerate_faces, r.flat_faces, r.duplicate_faces) == (18, 2, 1, 3)
    assert r.vertices == 9


def test_flat_faces_by_rounding() -> None:
    # a line that float32 cannot hit: the middle is off by less than half a unit in the last place of the ends
    ends = torch.tensor([[0.1, 0.7, 0.3], [0.9, 0.2, 0.5]])
    points = torch.cat((ends, torch.lerp(ends[:1], ends[1:], 0.37), ends[:1] + torch.tensor([0, 0, 1e-3])))
    r = mesh_report(TriMesh(points, torch.tensor([[0, 1, 2], [0, 1, 3]])))
    assert r.flat_faces == 1


def test_only_degenerate_faces() -> None:
    r = mesh_report(TriMesh(torch.rand(3, 3), torch.tensor([[0, 0, 1], [2, 2, 2]])))
    assert (r.degenerate_faces, r.edges, r.vertices, r.components, r.area, r.is_closed) == (2, 0, 0, 0, 0, False)
    assert r.volume is None


def test_bounds_leave_out_unused_vertices() -> None:
    mesh = TriMesh(torch.tensor([[9.0, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[1, 2, 3]]))
    r = mesh_report(mesh)
    assert r.bounds == ((0, 0, 0), (1, 1, 0))
    assert (r.vertices, r.stored_vertices) == (3, 4)


def test_order_of_rows_does_not_matter() -> None:
    mesh = merged(rotated(torus()), bowl(), seam(4), mobius(), split_apart(box()))
    generator = torch.Generator().manual_seed(3)
    first = mesh_report(mesh)
    for _ in range(5):
        vertex_order = torch.randperm(mesh.num_vertices, generator=generator)
        face_order = torch.randperm(mesh.num_faces, generator=generator)
        faces = vertex_order.argsort()[mesh.faces.long()][face_order].roll(1, 1)
        second = mesh_report(TriMesh(mesh.vertices[vertex_order], faces))
        sums = {"area": second.area, "boundary_length": second.boundary_length}
        assert sums == pytest.approx({"area": first.area, "boundary_length": first.boundary_length}, rel=1e-12)
        assert second == type(second)(**{**vars(second), **{k: getattr(first, k) for k in vars(first) if k not in sums}})


@pytest.mark.parametrize("name", ["fandisk", "bunny", "teapot", "beetle", "suzanne"])
def test_real_meshes_against_trimesh(data: Path, name: str) -> None:
    loaded = trimesh.load_mesh(data / f"{name}.obj", process=False, skip_materials=True)
    r = mesh_report(TriMesh.from_arrays(loaded.vertices, loaded.faces))
    other = trimesh.Trimesh(loaded.vertices.astype("f4"), loaded.faces, process=False)
    other.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=12)
    other.remove_unreferenced_vertices()
    counts = torch.from_numpy(trimesh.grouping.group_rows(other.edges_sorted, require_count=1)).numel()
    assert (r.vertices, r.edges, r.is_closed) == (len(other.vertices), len(other.edges_unique), other.is_watertight)
    assert r.boundary_edges == counts
    assert r.euler_number == other.euler_number
    assert r.area == pytest.approx(other.area, rel=1e-9)
    if r.volume is not None:
        assert r.volume == pytest.approx(other.volume, rel=1e-9)


def test_text_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = str(mesh_report(wavy_sheet(), progress=True)).splitlines()
    assert lines[0].split() == ["vertices", "625", "(625", "stored,", "welded)"]
    assert any(line.startswith("boundary") and "96 edges in 1 loops" in line for line in lines)
    assert any(line.startswith("volume") and "needs a closed" in line for line in lines)
    assert "mesh report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32), "at least one face"),
        (torch.rand(3, 3), torch.tensor([[0, 1, 3]]), r"index 3 vertices.*face 0 = \[0, 1, 3\]"),
        (torch.tensor([[0.0, 0, 0], [math.nan, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]), "must be finite"),
    ],
)
def test_bad_meshes(vertices: torch.Tensor, faces: torch.Tensor, message: str) -> None:
    with pytest.raises(MeshError, match=f"mesh_report.*{message}"):
        mesh_report(TriMesh(vertices, faces))
