"""Mesh to dual grid: what must not change a result, and every kind of bad input."""

from __future__ import annotations

import math

import numba
import pytest
import torch
from dual_grid_inputs import BOX4, ENGINES, ONE, TILTED, UNIT, square, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from voxgen.core.errors import CapacityError, EmptyResultWarning, FrameError, MeshError, RangeError
from voxgen.ops.dual_grid import dual_grid, normalize_to_unit_box
from voxgen.testing import shapes


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_moving_and_scaling_the_world_moves_and_scales_the_result(backend: str) -> None:
    mesh = shapes.rotated(shapes.torus(around=24, across=12))
    base = dual_grid(mesh.vertices, mesh.faces, **unit(32), backend=backend)
    for scale, shift in ((4.0, 0.0), (1 / 1024, 0.0), (1.0, 64.0)):
        vertices = mesh.vertices.double() * scale + shift
        origin = [o * scale + shift for o in UNIT]
        got = dual_grid(vertices, mesh.faces, origin=origin, voxel_size=scale / 32, resolution=32, backend=backend)
        assert torch.equal(got.cells, base.cells)
        assert torch.equal(got.intersected, base.intersected)
        torch.testing.assert_close(got.dual, base.dual, atol=1e-5, rtol=0)


def test_the_ends_of_bricks_and_the_number_of_threads_leave_no_trace() -> None:
    mesh = shapes.merged(shapes.rotated(shapes.box()), shapes.rotated(shapes.wavy_sheet()))
    mesh = mesh.replace(vertices=(mesh.vertices * 2**18).round() / 2**18)  # exact when moved
    base = dual_grid(mesh.vertices, mesh.faces, origin=(-0.75,) * 3, voxel_size=1 / 64, resolution=128)
    moved = dual_grid(mesh.vertices, mesh.faces, origin=(-0.75 - 13 / 64,) * 3, voxel_size=1 / 64, resolution=128)
    assert torch.equal(moved.cells, base.cells + 13)
    assert torch.equal(moved.intersected, base.intersected)
    torch.testing.assert_close(moved.dual, base.dual, atol=1e-6, rtol=0)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    alone = dual_grid(mesh.vertices, mesh.faces, origin=(-0.75,) * 3, voxel_size=1 / 64, resolution=128)
    numba.set_num_threads(threads)
    assert all(map(torch.equal, alone, base))


@pytest.mark.parametrize("backend", ENGINES)
def test_int64_faces_strided_and_float64_vertices_change_nothing(backend: str) -> None:
    mesh = shapes.rotated(shapes.sphere(0.3, 1))
    plain = dual_grid(mesh.vertices, mesh.faces, **unit(16), backend=backend)
    strided = torch.stack((mesh.vertices, mesh.vertices), 2)[:, :, 0]
    for vertices, faces in ((mesh.vertices, mesh.faces.long()), (strided, mesh.faces), (mesh.vertices.double(), mesh.faces)):
        assert all(map(torch.equal, dual_grid(vertices, faces, **unit(16), backend=backend), plain))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 12),
    resolution=st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24)),
    lattice=st.booleans(),
    compat=st.sampled_from([None, "trellis2"]),
)
@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_any_triangles_give_the_same_in_every_engine(
    seed: int, count: int, resolution: tuple[int, int, int], lattice: bool, compat: str | None
) -> None:
    """Soups of shared vertices, also with all of them on grid corners, where everything touches everything."""
    g = torch.Generator().manual_seed(seed)
    n = torch.tensor(resolution)
    vertices = torch.rand(3 + count // 2, 3, generator=g) * n
    if lattice:
        vertices = vertices.round()
    faces = torch.randint(len(vertices), (count, 3), generator=g)
    faces[0] = torch.arange(3)
    vertices[:3] = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.1, 0.6], [0.2, 0.7, 0.8]]) * n  # one face that surely has an area
    grid = {"origin": (0.0,) * 3, "voxel_size": 1.0, "resolution": resolution, "compat": compat}
    want = dual_grid(vertices, faces, **grid, backend="reference")
    for backend in ("numba", "torch"):
        got = dual_grid(vertices, faces, **grid, backend=backend)
        assert torch.equal(got.cells, want.cells)
        assert torch.equal(got.intersected, want.intersected)
        assert torch.equal(got.crossing_sign, want.crossing_sign)
        torch.testing.assert_close(got.dual, want.dual, atol=1e-5, rtol=0)


# ---- input that needs a word --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ENGINES)
def test_a_mesh_inside_one_cell_is_empty_and_says_why(backend: str) -> None:
    with pytest.warns(EmptyResultWarning, match="no triangle crosses an edge.*higher resolution"):
        grid = dual_grid(TILTED * 0.1, ONE, **BOX4, backend=backend)
    assert [tuple(t.shape) for t in grid] == [(0, 3)] * 4
    assert [t.dtype for t in grid] == [torch.int32, torch.float32, torch.bool, torch.bool]
    with pytest.warns(EmptyResultWarning):
        away = dual_grid(TILTED + 50, ONE, **BOX4, compat="trellis2", backend=backend)
    assert [tuple(t.shape) for t in away] == [(0, 3)] * 4


@pytest.mark.parametrize("backend", ENGINES)
def test_faces_without_area_add_nothing(backend: str) -> None:
    plain = dual_grid(TILTED, ONE, **BOX4, backend=backend)
    more = dual_grid(TILTED, torch.tensor([[0, 0, 1], [0, 1, 2], [2, 2, 2]]), **BOX4, backend=backend)
    assert all(map(torch.equal, more, plain))


def test_progress_shows_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    for backend in ("numba", "torch"):
        dual_grid(TILTED, ONE, **BOX4, progress=True, backend=backend)
        assert "dual grid" in capfd.readouterr().err
        dual_grid(TILTED, ONE, **BOX4, backend=backend)
        assert capfd.readouterr().err == ""


BAD = [
    ({"resolution": 0}, RangeError, "dual_grid: resolution must be from 1 to 65536; got 0"),
    ({"resolution": 100_000}, RangeError, "resolution must be from 1 to 65536; got 100000"),
    ({"face_weight": -1}, RangeError, "face_weight must be a finite number >= 0; got int -1"),
    ({"boundary_weight": math.nan}, RangeError, "boundary_weight must be a finite number"),
    ({"regularization": "0.1"}, RangeError, "regularization must be a finite number"),
    ({"faces": torch.zeros(0, 3, dtype=torch.int32)}, MeshError, "at least one face"),
    ({"faces": torch.tensor([[0, 1, 3]])}, MeshError, "faces must index 3 vertices"),
    ({"faces": torch.tensor([[0, 1, 1]])}, MeshError, "all 1 faces are degenerate"),
    ({"vertices": TILTED / 0}, MeshError, "vertices must be finite"),
    ({"vertices": TILTED - 1}, FrameError, r"dual_grid: .* along x; it reaches 0\.5 voxels below it.*Frame.fit"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=[t for _, _, t in BAD])
def test_bad_input_is_refused_with_the_reason(change: dict[str, object], error: type[Exception], text: str) -> None:
    arguments: dict[str, object] = {"vertices": TILTED, "faces": ONE, **BOX4, **change}
    with pytest.raises(error, match=text):
        dual_grid(**arguments)  # pyright: ignore[reportArgumentType]


def test_a_request_beyond_the_free_memory_is_refused() -> None:
    """65536³ cells would need about half a terabyte for this sheet."""
    with pytest.raises(CapacityError, match=r"dual_grid: needs about \d+ GiB on cpu, and .* are free\. Lower the resolution"):
        dual_grid(*square(0.0, 65000.0, 1.0), origin=(0, 0, 0), voxel_size=1.0, resolution=65536)


def test_normalizing_fills_the_box_up_to_a_hair() -> None:
    points = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.5, 7.0]])
    box = normalize_to_unit_box(points)
    assert box.dtype == torch.float32
    torch.testing.assert_close(box[1], torch.tensor([0.25, 0.0625, 0.5]) * 0.99999)
    torch.testing.assert_close(box[0], -box[1])
    assert normalize_to_unit_box(points.double()).dtype == torch.float64
    with pytest.raises(MeshError, match="at least one row"):
        normalize_to_unit_box(points[:0])
    with pytest.raises(MeshError, match="all lie at one point"):
        normalize_to_unit_box(points[:1])
