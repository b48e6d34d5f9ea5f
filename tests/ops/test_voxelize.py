"""Which cells a mesh touches: exact sets on known inputs, the rules at the border, and every kind of bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import CapacityError, DtypeError, EmptyResultWarning, FrameError, MeshError, RangeError, ShapeError
from voxgen.ops.voxelize import OP, TriangleCells, triangle_cells
from voxgen.ops.voxelize._prepare import prepare
from voxgen.ops.voxelize._reference import edge_crossings
from voxgen.testing import shapes

ENGINES = list(OP.backends)
TILTED = torch.tensor([[0.5, 0.5, 1.25], [3.5, 0.5, 1.25], [0.5, 3.5, 1.75]])
ONE = torch.tensor([[0, 1, 2]])
BOX4 = {"origin": (0.0, 0.0, 0.0), "voxel_size": 1.0, "resolution": 4}
UNIT = (-0.5, -0.5, -0.5)


def square(low: float, high: float, z: float) -> tuple[Tensor, Tensor]:
    corners = [[low, low, z], [high, low, z], [high, high, z], [low, high, z]]
    return torch.tensor(corners), torch.tensor([[0, 1, 2], [0, 2, 3]])


def rows(result: TriangleCells) -> set[tuple[int, ...]]:
    return {tuple(c) for c in result.cells.tolist()}


@pytest.mark.parametrize("backend", ENGINES)
def test_a_tilted_triangle_touches_the_cells_around_six_crossings(backend: str) -> None:
    found = triangle_cells(TILTED, ONE, **BOX4, backend=backend)
    columns = {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (0, 2), (1, 2), (2, 2), (0, 3), (1, 3)}
    assert rows(found) == {(i, j, 1) for i, j in columns}
    assert found.triangle.tolist() == [0] * 13
    assert found.cell_row.tolist() == list(range(13))
    assert found.cells.dtype == found.triangle.dtype == found.cell_row.dtype == torch.int32


@pytest.mark.parametrize("backend", ENGINES)
def test_a_surface_in_a_grid_plane_belongs_to_the_cells_above_it(backend: str) -> None:
    for vertices, faces in (square(0.5, 3.5, 2.0), square(0.0, 4.0, 2.0)):
        assert rows(triangle_cells(vertices, faces, **BOX4, backend=backend)) == {(i, j, 2) for i in range(4) for j in range(4)}
    vertices, faces = square(1.0, 3.0, 1.5)  # its border lies on grid lines: those at 1 are not crossed, those at 3 are
    assert rows(triangle_cells(vertices, faces, **BOX4, backend=backend)) == {(i, j, 1) for i in (1, 2, 3) for j in (1, 2, 3)}


@pytest.mark.parametrize("backend", ENGINES)
def test_the_upper_face_of_the_box_is_kept_unless_compat(backend: str) -> None:
    vertices, faces = square(0.5, 3.5, 4.0)
    assert rows(triangle_cells(vertices, faces, **BOX4, backend=backend)) == {(i, j, 3) for i in range(4) for j in range(4)}
    with pytest.warns(EmptyResultWarning):
        lost = triangle_cells(vertices, faces, **BOX4, compat="trellis2", backend=backend)
    assert len(lost.cells) == len(lost.triangle) == 0


@pytest.mark.parametrize("backend", ENGINES)
def test_compat_takes_a_surface_just_below_the_box_for_one_in_the_first_cell(backend: str) -> None:
    vertices, faces = square(0.5, 3.5, -0.5)
    found = triangle_cells(vertices, faces, **BOX4, compat="trellis2", backend=backend)
    assert rows(found) == {(i, j, 0) for i in range(4) for j in range(4)}
    with pytest.raises(FrameError, match=r"along z; it reaches 0\.5 voxels below"):
        triangle_cells(vertices, faces, **BOX4, backend=backend)


@pytest.mark.parametrize("backend", ENGINES)
def test_pairs_are_unique_sorted_and_complete(backend: str) -> None:
    mesh = shapes.rotated(shapes.torus(around=24, across=12))
    found = triangle_cells(mesh.vertices, mesh.faces, origin=UNIT, voxel_size=1 / 40, resolution=40, backend=backend)
    key = found.cell_row.long() * mesh.num_faces + found.triangle
    assert bool((key[1:] > key[:-1]).all())
    assert found.cell_row.unique().tolist() == list(range(len(found.cells)))
    # Every pair really touches: the triangle's box meets the cell, grown by rounding.
    corners = (mesh.vertices + 0.5)[mesh.faces.long()] * 40
    cell = found.cells[found.cell_row.long()]
    low, high = corners.amin(1)[found.triangle.long()], corners.amax(1)[found.triangle.long()]
    assert bool(((low <= cell + 1 + 1e-4) & (high >= cell - 1e-4)).all())


def test_the_cells_do_not_depend_on_where_bricks_end() -> None:
    """Moved by whole cells, the same cells come out, moved: bricks and threads leave no trace."""
    mesh = shapes.rotated(shapes.box())
    mesh = mesh.replace(vertices=(mesh.vertices * 2**18).round() / 2**18)  # exact when moved
    at = [triangle_cells(mesh.vertices, mesh.faces, origin=(-0.75 - s / 64,) * 3, voxel_size=1 / 64, resolution=128) for s in (0, 5, 13)]
    for shift, found in zip((5, 13), at[1:], strict=True):
        assert torch.equal(found.cells, at[0].cells + shift)
        assert torch.equal(found.triangle, at[0].triangle)


@pytest.mark.parametrize("backend", ENGINES)
def test_int64_faces_strided_and_float64_vertices_change_nothing(backend: str) -> None:
    mesh = shapes.rotated(shapes.sphere(0.3, 1))
    grid = {"origin": UNIT, "voxel_size": 1 / 16, "resolution": 16, "backend": backend}
    plain = triangle_cells(mesh.vertices, mesh.faces, **grid)
    strided = torch.stack((mesh.vertices, mesh.vertices), 2)[:, :, 0]
    for vertices, faces in ((mesh.vertices, mesh.faces.long()), (strided, mesh.faces), (mesh.vertices.double(), mesh.faces)):
        assert all(map(torch.equal, triangle_cells(vertices, faces, **grid), plain))


@pytest.mark.parametrize("backend", ENGINES)
def test_a_mesh_inside_one_cell_is_empty_and_says_why(backend: str) -> None:
    with pytest.warns(EmptyResultWarning, match=r"0\.3 voxels long.*higher resolution"):
        found = triangle_cells(TILTED * 0.1, ONE, **BOX4, backend=backend)
    assert found.cells.shape == (0, 3)
    assert found.cells.dtype == torch.int32
    assert found.triangle.shape == found.cell_row.shape == (0,)


@pytest.mark.parametrize("backend", ENGINES)
def test_degenerate_faces_among_others_are_legal(backend: str) -> None:
    faces = torch.tensor([[0, 0, 1], [0, 1, 2], [2, 2, 2]])
    found = triangle_cells(TILTED, faces, **BOX4, backend=backend)
    assert found.triangle.tolist() == [1] * 13


BAD = [
    ({"resolution": 0}, RangeError, "resolution must be from 1 to 65536; got 0"),
    ({"resolution": -3}, RangeError, "resolution must be from 1 to 65536; got -3"),
    ({"resolution": 100_000}, RangeError, "resolution must be from 1 to 65536; got 100000"),
    ({"resolution": 2.5}, DtypeError, "resolution must be a whole number"),
    ({"resolution": (4, 4)}, ShapeError, "resolution must be one whole number or three"),
    ({"voxel_size": 0.0}, RangeError, "voxel_size must be positive"),
    ({"voxel_size": float("nan")}, RangeError, "voxel_size must be finite"),
    ({"origin": (0.0, 0.0)}, ShapeError, "origin must be one number or three; got 2"),
    ({"origin": "corner"}, RangeError, "origin must be one number or three"),
    ({"compat": "trellis"}, RangeError, "compat must be one of 'trellis2'"),
    ({"vertices": TILTED.int()}, DtypeError, "vertices must be"),
    ({"vertices": TILTED[:, :2]}, ShapeError, "vertices must be"),
    ({"faces": torch.tensor([[0, 1, 2, 0]])}, ShapeError, "faces must be"),
    ({"faces": torch.zeros(0, 3, dtype=torch.int32)}, MeshError, "at least one face"),
    ({"faces": torch.tensor([[0, 1, 3]])}, MeshError, "faces must index 3 vertices"),
    ({"faces": torch.tensor([[0, 1, 2 + 2**32]])}, MeshError, "faces must index 3 vertices"),
    ({"faces": torch.tensor([[0, 1, 1]])}, MeshError, "all 1 faces are degenerate"),
    ({"vertices": TILTED.index_fill(0, torch.tensor([1]), float("nan"))}, MeshError, "vertices must be finite"),
    ({"vertices": TILTED + 1}, FrameError, r"along x; it reaches 0\.5 voxels above it.*Frame.fit"),
    ({"vertices": TILTED * 1e30, "compat": "trellis2"}, FrameError, "must lie inside the box"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=[t for _, _, t in BAD])
def test_bad_input_is_refused_with_the_reason(change: dict[str, object], error: type[Exception], text: str) -> None:
    arguments: dict[str, object] = {"vertices": TILTED, "faces": ONE, **BOX4, **change}
    with pytest.raises(error, match=text):
        triangle_cells(**arguments)  # pyright: ignore[reportArgumentType]


def test_a_request_beyond_the_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxgen.core.memory.free_memory", lambda device: 100)
    with pytest.raises(CapacityError, match=r"triangle_cells: needs about .* GiB on cpu, and .* are free\. Lower the resolution"):
        triangle_cells(TILTED, ONE, **BOX4)


def test_lattice_lines_through_shared_edges_cross_exactly_one_triangle() -> None:
    # A height field whose vertices and diagonals lie exactly on lattice lines: the worst case for rounding.
    sheet = shapes.wavy_sheet(65, size=1.0)
    vertices = torch.cat((sheet.vertices[:, :2] * 0.99999, sheet.vertices[:, 2:]), 1)
    counts = {}
    for compat in (None, "trellis2"):
        scene = prepare("test", vertices, sheet.faces, (-0.5,) * 3, 1 / 128, 128, compat)
        found = edge_crossings(scene, 2)
        columns = found.cells[:, 0] * 128 + found.cells[:, 1]
        counts[compat] = columns.bincount(minlength=128 * 128).reshape(128, 128)[:127, :127]
    assert (counts[None] == 1).all()
    assert (counts["trellis2"] != 1).any(), "if the original had no gap here, the case would show nothing"
