"""Dual grid → mesh: what the original gives, closed and oriented results. Engines agree in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dual_face_cases import ENGINES, grid_of
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.metrics import mesh_report
from voxgen.ops.dual_faces import DualMesh, dual_faces
from voxgen.testing.cases.dual_faces import noise
from voxgen.testing.cases.lookup import random_grid
from voxgen.testing.shells import ball, ring, shell

GOLDEN = Path(__file__).parents[1] / "golden"


class Golden:
    """One case of the golden file, in the order of its own rows."""

    def __init__(self, name: str) -> None:
        self.name = name
        description = json.loads((GOLDEN / "ovoxel_to_mesh.json").read_text())
        about, self.seed = description["cases"][name], description["seed"]
        with np.load(GOLDEN / "ovoxel_to_mesh.npz") as file:
            arrays = {key.removeprefix(f"{name}_"): torch.from_numpy(file[key]) for key in file if key.startswith(f"{name}_")}
        self.arrays = arrays
        size = about["grid_size"]
        x, y, z = size if isinstance(size, list) else (size,) * 3
        low, high = about["aabb"]
        frame = Frame.box(low, high, (x, y, z))
        self.grid, self.order = VoxelGrid.build(arrays["coords"], resolution=(x, y, z), frame=frame)
        self.intersected = (arrays["intersected"][:, None] >> torch.arange(3) & 1).bool()[self.order]
        self.about = about
        self.tolerance = 1e-6 * max(b - a for a, b in zip(low, high, strict=True))

    def decode(self, weighted: bool, **options: Any) -> tuple[DualMesh, Tensor, Tensor]:
        """The mesh, and the leaves (dual, weight) in the golden's order."""
        dual, weight = self.arrays["v"].clone().requires_grad_(), self.arrays["gamma"].clone().requires_grad_()
        mesh = dual_faces(
            self.grid,
            dual[self.order],
            self.intersected,
            split_weight=weight[self.order] if weighted else None,
            compat="trellis2",
            **options,
        )
        return mesh, dual, weight

    def quad_order(self, mesh: DualMesh) -> Tensor:
        """Our quads in the order of the original, which counts cells in the order of its rows."""
        return (self.order[mesh.quads.rows[:, 0].long()] * 3 + mesh.quads.axis).argsort()

    def faces(self, mesh: DualMesh) -> Tensor:
        """Our faces as the original numbers and lists them."""
        quads = self.quad_order(mesh)
        place = torch.empty_like(quads)
        place[quads] = torch.arange(len(quads))
        names = torch.cat((self.order, len(self.grid) + place))
        return names[mesh.faces.long()].reshape(len(quads), -1, 3)[quads].reshape(-1, 3).int()

    def vertices(self, mesh: DualMesh) -> Tensor:
        """Our vertices in the order of the original."""
        cells, middles = mesh.vertices[: len(self.grid)], mesh.vertices[len(self.grid) :]
        return torch.cat((cells[self.order.argsort()], middles[self.quad_order(mesh)] if len(middles) else middles))


@pytest.fixture(scope="module", params=["cube", "sheet", "noise"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.mark.parametrize("engine", ENGINES)
def test_original_with_weights(golden: Golden, engine: str) -> None:
    mesh, *_ = golden.decode(True, backend=engine)
    assert torch.equal(golden.faces(mesh), golden.arrays["eval_faces"])
    assert (golden.vertices(mesh) - golden.arrays["eval_vertices"]).abs().max() <= golden.tolerance
    assert int(mesh.quads.dropped.sum()) == golden.about["quads_dropped"]
    assert torch.equal(mesh.vertex_row.long(), torch.arange(len(golden.grid)))


@pytest.mark.parametrize("engine", ENGINES)
def test_original_without_weights(golden: Golden, engine: str) -> None:
    mesh, *_ = golden.decode(False, backend=engine)
    assert torch.equal(golden.faces(mesh), golden.arrays["nogamma_faces"])


@pytest.mark.parametrize("engine", ENGINES)
def test_original_training_and_gradients(golden: Golden, engine: str) -> None:
    from golden.recipe import normal

    mesh, dual, weight = golden.decode(True, training=True, backend=engine)
    assert torch.equal(golden.faces(mesh), golden.arrays["train_faces"])
    vertices = golden.vertices(mesh)
    assert (vertices[: len(golden.grid)] - golden.arrays["eval_vertices"]).abs().max() <= golden.tolerance
    assert (vertices[len(golden.grid) :] - golden.arrays["train_mid"]).abs().max() <= golden.tolerance
    upstream = torch.from_numpy(normal(f"{golden.name}.upstream", tuple(vertices.shape), golden.seed))
    (vertices * upstream).sum().backward()
    assert dual.grad is not None
    assert weight.grad is not None
    for found, name in ((dual.grad, "grad_v"), (weight.grad, "grad_gamma")):
        expected = golden.arrays[name]
        assert expected.abs().max() > 100 * golden.tolerance  # else the comparison would say nothing
        assert (found - expected).abs().max() <= golden.tolerance


@pytest.mark.parametrize("engine", ENGINES)
def test_published_quad(one_quad: dict[str, Any], engine: str) -> None:
    assert dual_faces(**one_quad, backend=engine).faces.tolist() == [[0, 1, 2], [2, 1, 3]]  # corners (0, 1, 3), (3, 1, 2): 3 < 8
    one_quad["split_weight"] = torch.ones(4)
    assert dual_faces(**one_quad, backend=engine).faces.tolist() == [[0, 1, 2], [2, 1, 3]]  # equal products: the same
    one_quad["split_weight"] = torch.tensor([2.0, 1, 1, 2])[:, None]
    assert dual_faces(**one_quad, backend=engine).faces.tolist() == [[0, 1, 3], [0, 3, 2]]


@pytest.mark.parametrize("engine", ENGINES)
def test_published_middle_vertex_and_gradients(one_quad: dict[str, Any], engine: str) -> None:
    dual, weight = one_quad["dual"].requires_grad_(), one_quad["split_weight"].requires_grad_()
    mesh = dual_faces(**one_quad, training=True, backend=engine)
    assert mesh.faces.tolist() == [[0, 1, 4], [1, 3, 4], [3, 2, 4], [2, 0, 4]]
    assert mesh.vertex_row.tolist() == [0, 1, 2, 3, -1]
    middle = mesh.vertices[4]
    torch.testing.assert_close(middle, torch.tensor([-0.2556818, -0.2522727, -0.4022727]), atol=1e-6, rtol=0)
    middle.sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([-0.0074380, 0.0037190, 0.0018595, -0.0024793]), atol=1e-6, rtol=0)
    torch.testing.assert_close(dual.grad[:2], torch.tensor([[0.0340909], [0.0909091]]).expand(2, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_normals_point_towards_minus_or_along_the_sign(axis: int, engine: str) -> None:
    u, v = sorted({0, 1, 2} - {axis})
    cells = [[0, 0, 0] for _ in range(4)]
    for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        cells[k][u], cells[k][v] = i, j
    grid, _ = grid_of(cells)
    flags = torch.zeros(4, 3, dtype=torch.bool)
    flags[0, axis] = True
    for sign in (None, ~flags, flags):
        mesh = dual_faces(grid, torch.full((4, 3), 0.5), flags, crossing_sign=sign, backend=engine)
        expected = torch.zeros(3)
        expected[axis] = 1 if sign is flags else -1
        assert torch.equal(mesh.to_meshes()[0].face_normals(), expected.expand(2, 3))
        assert mesh.quads.rows[0, 0] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_three_quads_are_cut_like_one(engine: str) -> None:
    """The original takes its cross products along the wrong axis when there are exactly three quads."""
    cells = [[i, j, 0] for i in range(4) for j in range(2)]
    grid, _ = grid_of(cells)
    dual = torch.rand(8, 3)
    flags = torch.zeros(8, 3, dtype=torch.bool)
    flags[[0, 2, 4], 2] = True
    together = dual_faces(grid, dual, flags, split="angle", backend=engine).faces
    for quad in range(3):
        alone = torch.zeros_like(flags)
        alone[2 * quad, 2] = True
        single = dual_faces(grid, dual, alone, split="angle", keep_unused=True, backend=engine).faces
        assert torch.equal(together[2 * quad : 2 * quad + 2], single)


@pytest.mark.parametrize("engine", ENGINES)
def test_cut_across_the_smaller_angle(engine: str) -> None:
    """A saddle bends less across its shorter diagonal, whichever that is; a flat quad is cut along 0–2."""
    grid, order = grid_of([[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]])
    flags = torch.zeros(4, 3, dtype=torch.bool)
    flags[0, 2] = True
    inwards = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]) / 4
    for short, height, expected in (
        ((0, 2), 0.25, [[0, 1, 3], [0, 3, 2]]),
        ((1, 3), 0.25, [[0, 1, 2], [2, 1, 3]]),
        ((1, 3), 0.0, [[0, 1, 3], [0, 3, 2]]),
    ):
        dual = torch.full((4, 3), 0.5)
        dual[list(short)] += inwards[list(short)]
        dual[[1, 3], 2] += height
        assert dual_faces(grid, dual[order], flags, backend=engine).faces.tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_angles_are_those_of_the_cells_in_the_world(engine: str) -> None:
    """Cells of unequal sides: the cut of an engine equals the cut found from world positions in float64."""
    resolution = (6, 6, 6)
    frame = Frame((1.0, -2.0, 0.5), (0.5, 0.03125, 0.125))
    grid = VoxelGrid(random_grid(6, 1, 2000).coords, resolution, 1, frame)
    inputs = noise(grid, torch.float64)
    mesh = dual_faces(grid, inputs["dual"], inputs["intersected"], split="angle", keep_unused=True, backend=engine)

    def cosine(n: Tensor, m: Tensor) -> Tensor:
        return torch.where((n.norm(dim=1) > 1e-12) & (m.norm(dim=1) > 1e-12), torch.cosine_similarity(n, m, eps=1e-30), -1)

    a, b, c, d = mesh.vertices[mesh.quads.rows.long()].unbind(1)
    cross = torch.linalg.cross
    one, other = cosine(cross(b - a, c - a), cross(c - a, d - a)), cosine(cross(b - a, d - a), cross(b - d, c - d))
    clear = (one - other).abs() > 1e-9
    first = mesh.faces[1::2, 0] == mesh.quads.rows[:, 0]
    assert clear.sum() > 100
    assert torch.equal(first[clear], (one > other)[clear])


@pytest.mark.parametrize("engine", ENGINES)
def test_angles_do_not_depend_on_where_the_cells_are(engine: str) -> None:
    grid = random_grid(6, 1, 2000)
    inputs = noise(grid, torch.float32)
    here = dual_faces(grid, inputs["dual"], inputs["intersected"], backend=engine)
    moved = VoxelGrid.from_sorted(grid.coords + torch.tensor([0, 9000, 17, 4001]).int(), resolution=16384, batch_size=1)
    assert torch.equal(dual_faces(moved, inputs["dual"], inputs["intersected"], backend=engine).faces, here.faces)


def box_distance(points: Tensor) -> Tensor:
    """A box with known numbers, 4³ cells over [0, 4]³, in the unit cube."""
    low, high = torch.tensor([0.8, 0.7, 0.6]).double() / 4 - 0.5, torch.tensor([3.3, 3.2, 3.4]).double() / 4 - 0.5
    return torch.maximum(low - points, points - high).amax(-1)


@pytest.mark.parametrize("engine", ENGINES)
def test_published_box_closes(engine: str) -> None:
    s = shell(box_distance, 4)
    assert len(s.grid) == 56
    assert s.intersected.sum(0).tolist() == [18, 18, 18]
    plain = dual_faces(s.grid, s.dual, s.intersected, backend=engine)
    assert len(plain.quads.rows) == 54
    assert mesh_report(plain.to_meshes()[0], weld=False).is_closed
    assert not mesh_report(plain.to_meshes()[0], weld=False).is_oriented
    report = mesh_report(
        dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign, backend=engine).to_meshes()[0], weld=False
    )
    assert (report.is_closed, report.is_oriented, report.faces, report.euler_number) == (True, True, 108, 2)
    assert report.volume is not None
    assert report.volume > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("solid", "genus"), [(ball, 0), (ring, 1)])
def test_closed_solids_decode_closed_and_outwards(solid: Any, genus: int, training: bool, engine: str) -> None:
    s = shell(solid, 32)
    mesh = dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign, training=training, backend=engine)
    assert mesh.quads.dropped.tolist() == [0]
    report = mesh_report(mesh.to_meshes()[0], weld=False)
    assert (report.is_closed, report.is_oriented, report.components, report.genus) == (True, True, 1, genus)
    exact = 4 / 3 * np.pi * 0.4**3 if solid is ball else 2 * np.pi**2 * 0.25 * 0.08**2
    assert report.volume == pytest.approx(exact, rel=0.05)  # positive = outwards; the corners cut the thin ring by 4 %
    distance = solid(mesh.vertices.double()).abs().max() * 32
    assert distance < 0.25  # cells; vertices lie on the surface, middles of quads between them
