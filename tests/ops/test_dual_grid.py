"""Mesh to dual grid: known numbers, and what the default mends."""

from __future__ import annotations

import pytest
import torch
from dual_grid_inputs import BOX4, ENGINES, ONE, TILTED, UNIT, square, unit
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.ops.dual_grid import DualGrid, dual_grid
from voxgen.ops.dual_grid._prepare import boundary_edges
from voxgen.ops.voxelize._prepare import prepare
from voxgen.testing import shapes
from voxgen.testing.cases.dual_grid import unwelded


def world(grid: DualGrid) -> dict[tuple[int, ...], list[float]]:
    """Dual vertex in voxels from the grid's corner, by cell."""
    points = (grid.cells + grid.dual).tolist()
    return {tuple(c): p for c, p in zip(grid.cells.tolist(), points, strict=True)}


# ---- known numbers ------------------------------------------------------------------------------------------------------


TILTED_DUALS = {  # cell: dual, z flag, dual without the boundary term
    (0, 0, 1): ((0.52381, 0.52381, 1.25397), 1, (1.0, 1.0, 1.33333)),
    (0, 1, 1): ((0.54546, 1.49999, 1.41667), 1, (1.0, 1.5, 1.41667)),
    (1, 0, 1): ((1.50001, 0.54545, 1.25758), 1, (1.5, 1.0, 1.33333)),
    (1, 1, 1): ((1.5, 1.5, 1.41667), 1, (1.5, 1.5, 1.41667)),
    (2, 0, 1): ((2.50001, 0.54545, 1.25758), 1, (2.5, 1.0, 1.33333)),
    (2, 1, 1): ((2.48025, 1.47627, 1.41271), 0, (2.33333, 1.33333, 1.38889)),
    (3, 0, 1): ((3.41589, 0.54308, 1.25718), 0, (3.0, 1.0, 1.33333)),
    (3, 1, 1): ((3.0, 1.0, 1.33333), 0, (3.0, 1.0, 1.33333)),
    (0, 2, 1): ((0.54546, 2.5, 1.58333), 1, (1.0, 2.5, 1.58333)),
    (1, 2, 1): ((1.48025, 2.47627, 1.57938), 0, (1.33333, 2.33333, 1.55556)),
    (2, 2, 1): ((2.0, 2.0, 1.5), 0, (2.0, 2.0, 1.5)),
    (0, 3, 1): ((0.54407, 3.41396, 1.73566), 0, (1.0, 3.0, 1.66667)),
    (1, 3, 1): ((1.0, 3.0, 1.66667), 0, (1.0, 3.0, 1.66667)),
}


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("compat", [None, "trellis2"])
def test_a_tilted_triangle(backend: str, compat: str | None) -> None:
    for column, weight in ((0, 0.2), (2, 0.0)):
        grid = dual_grid(TILTED, ONE, **BOX4, boundary_weight=weight, compat=compat, backend=backend)
        got = world(grid)
        assert got.keys() == TILTED_DUALS.keys()
        for cell, row in TILTED_DUALS.items():
            assert got[cell] == pytest.approx(row[column], abs=1e-4)
        flags = {tuple(c): f for c, f in zip(grid.cells.tolist(), grid.intersected.tolist(), strict=True)}
        assert flags == {cell: [False, False, bool(row[1])] for cell, row in TILTED_DUALS.items()}
        assert grid.dual.dtype == torch.float32
        assert grid.cells.dtype == torch.int32


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("compat", [None, "trellis2"])
def test_squares_on_grid_planes_and_lines(backend: str, compat: str | None) -> None:
    vertices, faces = square(0.5, 3.5, 2.0)
    grid = dual_grid(vertices, faces, **BOX4, compat=compat, backend=backend)
    got = world(grid)
    assert got.keys() == {(i, j, 2) for i in range(4) for j in range(4)}
    assert grid.dual[:, 2].tolist() == pytest.approx([0] * 16, abs=1e-6)
    for cell, point in {
        (0, 0, 2): (0.52381, 0.52381),
        (1, 0, 2): (1.49999, 0.54545),
        (1, 1, 2): (1.5, 1.5),
        (3, 3, 2): (3.47619,) * 2,
    }.items():
        assert got[cell][:2] == pytest.approx(point, abs=1e-4)
    assert grid.intersected.tolist() == [[False, False, i <= 2 and j <= 2] for i in range(4) for j in range(4)]
    turned = dual_grid(vertices, faces.flip(1), **BOX4, compat=compat, backend=backend)
    assert torch.equal(turned.cells, grid.cells)
    assert torch.equal(turned.intersected, grid.intersected)
    torch.testing.assert_close(turned.dual, grid.dual, atol=1e-6, rtol=0)

    got = world(dual_grid(*square(1.0, 3.0, 1.5), **BOX4, compat=compat, backend=backend))
    assert got.keys() == {(i, j, 1) for i in (1, 2, 3) for j in (1, 2, 3)}
    assert got[1, 1, 1] == pytest.approx((1.04762, 1.04762, 1.5), abs=1e-4)
    assert got[2, 2, 1] == pytest.approx((2.5, 2.5, 1.5), abs=1e-4)
    assert got[3, 3, 1] == pytest.approx((3, 3, 1.5), abs=1e-4)


BOX_FACES = [[int(c) for c in f] for f in ("013", "032", "467", "475", "045", "051", "237", "276", "026", "064", "157", "173")]


@pytest.mark.parametrize("backend", ENGINES)
def test_a_box_keeps_its_corners_and_edges(backend: str) -> None:
    low, high = (0.8, 0.7, 0.6), (3.3, 3.2, 3.4)
    corners = torch.tensor([[(low, high)[k >> (2 - a) & 1][a] for a in range(3)] for k in range(8)])
    grid = dual_grid(corners, torch.tensor(BOX_FACES), **BOX4, backend=backend)
    assert len(grid.cells) == 56
    assert grid.intersected.sum(0).tolist() == [18, 18, 18]
    got = world(grid)
    flags = {tuple(c): f for c, f in zip(grid.cells.tolist(), grid.intersected.tolist(), strict=True)}
    for cell, point, bits in [
        ((0, 0, 0), (0.8013, 0.7020, 0.6026), [1, 1, 1]),
        ((3, 3, 3), (3.2980, 3.1987, 3.3974), [0, 0, 0]),
        ((1, 1, 0), (1.5, 1.5, 0.6), [0, 0, 1]),
        ((0, 3, 3), (0.8013, 3.1980, 3.3961), [0, 0, 0]),
    ]:
        assert got[cell] == pytest.approx(point, abs=1e-3)
        assert flags[cell] == [bool(b) for b in bits]


def spec_torus() -> TriMesh:
    return shapes.torus(0.3, 0.12, 64, 32, (0.0031, 0.0017, 0.0023))


TORUS = {  # resolution: cells, flags, sum of cells, mean local dual, mean distance to the torus in voxels, a cell and its dual
    16: (466, (116, 116, 234), (3535, 3517, 3500), (0.47547, 0.48905, 0.49699), 0.03088, (2, 3, 7), (0.8670, 0.8427, 0.5023)),
    32: (2001, (535, 538, 928), (31258, 31105, 31076), (0.49969, 0.50038, 0.51554), 0.01515, (5, 7, 14), (0.8652, 0.7769, 0.6419)),
    64: (8281, (2293, 2300, 3688), (262544, 261485, 261272), (0.49916, 0.50193, 0.51080), 0.02138, (11, 14, 29), (0.9784, 0.9761, 0.9471)),
}


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("n", list(TORUS))
def test_a_torus(backend: str, n: int) -> None:
    count, flags, sums, mean, distance, cell, dual = TORUS[n]
    mesh = spec_torus()
    grid = dual_grid(mesh.vertices, mesh.faces, **unit(n), compat="trellis2", backend=backend)
    assert len(grid.cells) == count
    assert tuple(grid.intersected.sum(0).tolist()) == flags
    assert tuple(grid.cells.sum(0).tolist()) == sums
    assert grid.dual.double().mean(0).tolist() == pytest.approx(mean, abs=1e-4)
    at = (grid.cells == torch.tensor(cell)).all(1)
    assert grid.dual[at][0].tolist() == pytest.approx(dual, abs=1e-3)
    p = (grid.cells + grid.dual).double() / n - 0.5 - torch.tensor((0.0031, 0.0017, 0.0023))
    far = ((p[:, :2].norm(dim=1) - 0.3) ** 2 + p[:, 2] ** 2).sqrt() - 0.12
    assert float(far.abs().mean()) * n == pytest.approx(distance, abs=1e-4)


# ---- what the default mends ---------------------------------------------------------------------------------------------


def lattice_faces_with_odd_flags(grid: DualGrid, n: int) -> int:
    """Faces between two cells of which an odd number of the four edges is flagged: there the extracted surface has a border."""
    volume = torch.zeros(3, n + 1, n + 1, n + 1, dtype=torch.int64)
    x, y, z = (grid.cells.long() + 1).unbind(1)
    for axis in range(3):
        volume[axis, x, y, z] = grid.intersected[:, axis].long()
    odd = 0
    for u, v in ((0, 1), (1, 2), (0, 2)):  # a face spanned by the axes u and v has two edges along each, one step apart
        odd += int(((volume[u] + volume[u].roll(1, v) + volume[v] + volume[v].roll(1, u)) % 2).sum())
    return odd


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ["torus", "box"])
def test_a_sheet_folded_around_an_edge_leaves_no_flap(name: str, backend: str) -> None:
    """A torus grazes some grid edges and a turned box cuts some off at its own edges: two crossings, which no flag can say."""
    mesh = shapes.rotated({"torus": shapes.torus, "box": shapes.box}[name]())
    mended, original = (dual_grid(mesh.vertices, mesh.faces, **unit(48), compat=c, backend=backend) for c in (None, "trellis2"))
    assert torch.equal(mended.cells, original.cells)
    assert lattice_faces_with_odd_flags(mended, 48) == 0, "closed in, closed out"
    assert lattice_faces_with_odd_flags(original, 48) > 0


@pytest.mark.parametrize("backend", ENGINES)
def test_the_two_sides_of_a_thin_wall_keep_their_flags(backend: str) -> None:
    """Both sides cross each edge, in and out, but they look away from each other: without flags the wall would be gone."""
    wall = shapes.rotated(shapes.box((-0.4, -0.4, -0.004), (0.4, 0.4, 0.004)), angle=0.3)
    mended, original = (dual_grid(wall.vertices, wall.faces, **unit(32), compat=c, backend=backend) for c in (None, "trellis2"))
    kept = int((mended.intersected & original.intersected).sum())
    assert kept > 0.9 * int(original.intersected.sum()), "only folds at the rim may go"


@pytest.mark.parametrize("backend", ENGINES)
def test_an_unwelded_mesh_gives_the_duals_of_the_welded_one(backend: str) -> None:
    """In compat every edge of it is a boundary, which moves duals by 0.13 voxel on average."""
    mesh = shapes.torus(0.3, 0.12, 32, 16, (0.0031, 0.0017, 0.0023))
    soup = unwelded(mesh)
    whole = dual_grid(mesh.vertices, mesh.faces, **unit(32), backend=backend)
    torn = dual_grid(soup.vertices, soup.faces, **unit(32), backend=backend)
    original = dual_grid(soup.vertices, soup.faces, **unit(32), compat="trellis2", backend=backend)
    assert torch.equal(torn.cells, whole.cells)
    torch.testing.assert_close(torn.dual, whole.dual, atol=1e-6, rtol=0)
    assert float((original.dual - whole.dual).norm(dim=1).mean()) > 0.05


def edges_of(vertices: Tensor, faces: Tensor, compat: str | None = None) -> list[list[int]]:
    low = vertices.amin(0) - 0.5
    return boundary_edges(prepare("test", vertices, faces, low.tolist(), 1.0, 100, compat)).tolist()


def test_boundary_of_a_sheet_is_its_border_however_it_is_stored() -> None:
    vertices, faces = square(0.0, 4.0, 1.0)
    border = [[0, 1], [0, 3], [1, 2], [2, 3]]
    assert edges_of(vertices, faces) == border
    assert edges_of(vertices, faces, "trellis2") == border
    # A seam: the second triangle has vertices of its own.
    seam = torch.cat((vertices, vertices)), torch.tensor([[0, 1, 2], [4, 6, 7]])
    assert edges_of(*seam) == border
    assert len(edges_of(*seam, "trellis2")) == 6
    # The two sides of the sheet, as exporters write double-sided materials.
    both = torch.cat((vertices, vertices)), torch.cat((faces, faces.flip(1) + 4))
    assert edges_of(*both) == border
    # -0.0 is 0.0.
    assert edges_of(torch.cat((vertices, vertices * torch.tensor([-0.0, 1, 1]) + vertices * torch.tensor([1.0, 0, 0]))), seam[1]) == border


def test_faces_that_welding_flattens_make_no_boundary_and_hide_none() -> None:
    vertices, faces = square(0.0, 4.0, 1.0)
    vertices = torch.cat((vertices, vertices[:1]))
    sliver = torch.tensor([[0, 4, 2], [4, 0, 1], [3, 3, 3]])  # on the diagonal inside, on the border, a point
    assert edges_of(vertices, torch.cat((faces, sliver))) == [[0, 1], [0, 3], [1, 2], [2, 3]]


@pytest.mark.parametrize("backend", ENGINES)
def test_a_boundary_on_the_upper_face_of_the_box_counts_like_one_on_the_lower(backend: str) -> None:
    got = world(dual_grid(*square(0.0, 4.0, 1.5), **BOX4, backend=backend))
    assert got[0, 0, 1] == pytest.approx((0.04762, 0.04762, 1.5), abs=1e-4)
    assert got[3, 3, 1] == pytest.approx((3.95238, 3.95238, 1.5), abs=1e-4)
    lost = world(dual_grid(*square(0.0, 4.0, 1.5), **BOX4, compat="trellis2", backend=backend))
    assert lost[0, 0, 1] == pytest.approx((0.04762, 0.04762, 1.5), abs=1e-4)
    assert lost[3, 3, 1] == pytest.approx((3.0, 3.0, 1.5), abs=1e-4)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_box_that_fills_the_grid_keeps_all_six_faces(backend: str) -> None:
    mesh = shapes.box(UNIT, (0.5, 0.5, 0.5))
    grid = dual_grid(mesh.vertices, mesh.faces, **unit(8), backend=backend)
    on_low, on_high = ((grid.cells == side).any(1) for side in (0, 7))
    assert int((on_low | on_high).sum()) == len(grid.cells) == 8**3 - 6**3
    at_high = torch.where(grid.cells == 7, grid.dual, torch.ones_like(grid.dual))
    assert float(at_high.min()) > 0.99
    lost = dual_grid(mesh.vertices, mesh.faces, **unit(8), compat="trellis2", backend=backend)
    assert len(lost.cells) < len(grid.cells)


@pytest.mark.parametrize("backend", ENGINES)
def test_face_weight_is_a_weight(backend: str) -> None:
    """It fades out as it goes to zero; in compat it only switches."""
    mesh = shapes.rotated(shapes.box())

    def run(weight: float, compat: str | None = None) -> Tensor:
        return dual_grid(mesh.vertices, mesh.faces, **unit(24), face_weight=weight, compat=compat, backend=backend).dual

    off, half, on = run(0.0), run(0.5), run(1.0)
    moved = (on - off).norm(dim=1).mean()
    assert float((run(1e-6) - off).abs().max()) < 1e-3
    assert 0.2 * moved < (half - off).norm(dim=1).mean() < 0.95 * moved
    assert torch.equal(run(0.5, "trellis2"), run(1.0, "trellis2"))
    torch.testing.assert_close(run(1e-6, "trellis2"), on, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ENGINES)
def test_rounding_of_a_mesh_with_vertices_in_grid_planes_moves_little(backend: str) -> None:
    """Half of the sheet's rows of vertices lie in grid planes; in compat the last bit says which cells their faces touch."""
    sheet = shapes.wavy_sheet()
    noise = (torch.rand(sheet.vertices.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 3e-7

    def moved(compat: str | None) -> Tensor:
        a, b = (dual_grid(sheet.vertices + shift, sheet.faces, **unit(64), compat=compat, backend=backend) for shift in (0, noise))
        assert torch.equal(a.cells, b.cells)
        return (a.dual - b.dual).norm(dim=1)

    assert float(moved(None).mean()) < 0.5 * float(moved("trellis2").mean())
    assert float(moved(None).max()) < 0.1 < float(moved("trellis2").max())


@pytest.mark.parametrize("backend", ENGINES)
def test_crossing_signs_tell_the_side_of_the_surface(backend: str) -> None:
    mesh = shapes.rotated(shapes.sphere(0.4, 3))
    grid = dual_grid(mesh.vertices, mesh.faces, **unit(32), backend=backend)
    turned = dual_grid(mesh.vertices, mesh.faces.flip(1), **unit(32), backend=backend)
    assert torch.equal(turned.intersected, grid.intersected)
    assert torch.equal(turned.crossing_sign, grid.intersected & ~grid.crossing_sign)
    # Outward normals of a ball point away from its middle along every axis; near its equator facets may tilt the other way.
    away = (grid.cells + 0.5) / 32 - 0.5 - torch.tensor([0.013, -0.007, 0.021])
    clear = grid.intersected & (away.abs() > 0.06)
    assert int(clear.sum()) > 0.8 * int(grid.intersected.sum())
    assert torch.equal(grid.crossing_sign[clear], away[clear] > 0)
    # Two sheets in one edge that look in opposite directions: a tie.
    vertices, faces = square(0.5, 3.5, 1.5)
    both = dual_grid(vertices, torch.cat((faces, faces.flip(1))), **BOX4, backend=backend)
    assert int(both.intersected.sum()) == 9
    assert int(both.crossing_sign.sum()) == 0


@pytest.mark.parametrize("backend", ENGINES)
def test_without_regularizer_flat_parts_go_to_the_mean_crossing(backend: str) -> None:
    got = world(dual_grid(*square(0.5, 3.5, 1.3), **BOX4, boundary_weight=0.0, regularization=0.0, backend=backend))
    assert got[1, 1, 1] == pytest.approx((1.5, 1.5, 1.3), abs=1e-5)
    assert got[0, 0, 1] == pytest.approx((1.0, 1.0, 1.3), abs=1e-5)
