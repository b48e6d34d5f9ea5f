"""Dual faces: batches, order, precision, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dual_face_cases import ENGINES, grid_of
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.errors import CapacityError, DeviceError, DtypeError, RangeError, ShapeError
from voxgen.ops.dual_faces import DualMesh, dual_faces
from voxgen.testing.cases.dual_faces import batched, empty_shell, noise
from voxgen.testing.cases.lookup import random_grid
from voxgen.testing.shells import Shell, ball, hollow_ball, shell

UNIT = Frame.unit(4)


def decode(s: Shell, **options: Any) -> DualMesh:
    return dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{}, {"training": True}, {"keep_unused": True, "training": True}])
def test_a_sample_gives_the_same_alone_and_in_a_batch(options: dict[str, Any], engine: str) -> None:
    loose_grid = random_grid(16, 1, 1500)
    loose = noise(loose_grid, torch.float32)
    samples = [
        empty_shell(16),
        shell(hollow_ball, 16),
        empty_shell(16),
        Shell(loose_grid, loose["dual"], loose["intersected"], loose["crossing_sign"]),
        shell(ball, 16),
    ]
    grid, inputs = batched(samples)
    del inputs["split_weight"]
    mesh = dual_faces(grid, **inputs, **options, backend=engine)
    cells, values = grid.offsets.tolist(), torch.rand(len(grid), 2)
    for i, (s, found) in enumerate(zip(samples, mesh.to_meshes(), strict=True)):
        alone = decode(s, **options, backend=engine)
        assert torch.equal(found.vertices, alone.vertices)
        assert torch.equal(found.faces, alone.faces)
        assert mesh.quads.dropped[i] == alone.quads.dropped[0]
        own = slice(*mesh.vertex_offsets[i : i + 2].tolist())
        rows = mesh.vertex_row[own]
        assert torch.equal(torch.where(rows < 0, rows, rows - cells[i]), alone.vertex_row)
        assert torch.equal(mesh.at_vertices(values)[own], alone.at_vertices(values[cells[i] : cells[i + 1]]))
    assert int(mesh.quads.dropped.sum()) > 0
    assert int(mesh.face_offsets[-1]) == len(mesh.faces)


@pytest.mark.parametrize("engine", ENGINES)
def test_order_of_the_callers_cells_does_not_matter(engine: str) -> None:
    s = shell(hollow_ball, 16)
    shuffle = torch.randperm(len(s.grid))
    grid, order = VoxelGrid.build(s.grid.coords[shuffle], resolution=16)
    rows = shuffle[order]
    mesh = decode(Shell(grid, s.dual[rows], s.intersected[rows], s.crossing_sign[rows]), backend=engine)
    assert torch.equal(mesh.faces, decode(s).faces)
    assert torch.equal(mesh.vertices, decode(s).vertices)


@pytest.mark.parametrize("engine", ENGINES)
def test_unused_vertices(engine: str) -> None:
    grid = random_grid(7, 2, 600)
    inputs = noise(grid, torch.float32)
    dual = inputs.pop("dual").requires_grad_()
    short = dual_faces(grid, dual, **inputs, backend=engine)
    full = dual_faces(grid, dual, **inputs, keep_unused=True, backend=engine)
    assert 0 < len(short.vertices) < len(full.vertices) == len(grid)
    assert torch.equal(short.faces.unique(), torch.arange(len(short.vertices)).int())
    assert torch.equal(full.vertices[full.faces.long()], short.vertices[short.faces.long()])
    assert torch.equal(full.vertices[short.vertex_row.long()], short.vertices)
    assert torch.equal(short.at_vertices(full.vertices), short.vertices)
    short.vertices.sum().backward()
    assert dual.grad is not None
    used = torch.zeros(len(grid), dtype=torch.bool)
    used[short.vertex_row.long()] = True
    assert torch.equal(dual.grad != 0, used[:, None].expand(-1, 3))


@pytest.mark.parametrize("weighted", [False, True])
def test_training_gradients_in_float64(weighted: bool) -> None:
    grid = random_grid(3, 1, 200)
    inputs = noise(grid, torch.float64)
    flags, sign = inputs["intersected"], inputs["crossing_sign"]
    dual, weight = inputs["dual"].requires_grad_(), inputs["split_weight"].requires_grad_(weighted)

    def vertices(dual: Tensor, weight: Tensor) -> Tensor:
        given = weight if weighted else None
        return dual_faces(grid, dual, flags, split_weight=given, crossing_sign=sign, training=True).vertices

    assert len(vertices(dual, weight)) > 10
    assert torch.autograd.gradcheck(vertices, (dual, weight))


def test_weights_whose_products_vanish_give_the_mean(one_quad: dict[str, Any]) -> None:
    weight = torch.full((4,), 1e-30, requires_grad=True)
    mesh = dual_faces(**{**one_quad, "split_weight": weight}, training=True)
    torch.testing.assert_close(mesh.vertices[4], mesh.vertices[:4].mean(0))
    mesh.vertices.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(4))


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_reaches_its_vertex_only(engine: str) -> None:
    s = shell(ball, 16)
    dual = s.dual.clone()
    dual[7, 1] = float("nan")
    mesh = decode(s._replace(dual=dual), backend=engine)
    assert mesh.vertices.isnan().nonzero().tolist() == [[mesh.vertex_row.tolist().index(7), 1]]
    assert len(mesh.faces) == len(decode(s).faces)


@pytest.mark.parametrize("engine", ENGINES)
def test_strided_inputs(engine: str) -> None:
    s = shell(ball, 16)
    wide = torch.rand(len(s.grid), 7)
    wide[:, ::2][:, :3] = s.dual
    flags = s.intersected.t().contiguous().t()
    mesh = dual_faces(
        s.grid, wide[:, ::2][:, :3], flags, split_weight=wide[:, 1], crossing_sign=s.crossing_sign.t().contiguous().t(), backend=engine
    )
    expected = decode(s, split_weight=wide[:, 1].contiguous(), backend=engine)
    assert torch.equal(mesh.faces, expected.faces)
    assert torch.equal(mesh.vertices, expected.vertices)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_to_join(engine: str) -> None:
    grid = random_grid(5, 3, 20)
    dual, none = torch.rand(len(grid), 3), torch.zeros(len(grid), 3, dtype=torch.bool)
    mesh = dual_faces(grid, dual, none, backend=engine)
    assert mesh.vertices.shape == mesh.faces.shape == (0, 3)
    assert mesh.vertex_offsets.tolist() == mesh.face_offsets.tolist() == [0, 0, 0, 0]
    assert mesh.faces.dtype == torch.int32
    assert [m.num_faces for m in mesh.to_meshes()] == [0, 0, 0]
    lonely = dual_faces(grid, dual, ~none, training=True, keep_unused=True, backend=engine)
    assert int(lonely.quads.dropped.sum()) + len(lonely.quads.rows) == 3 * len(grid)


def test_vertices_lie_in_the_frame() -> None:
    frame = Frame((10.0, 20.0, 30.0), (0.5, 0.25, 0.125), "z")
    grid, _ = grid_of([[1, 2, 3]], frame=frame)
    mesh = dual_faces(grid, torch.tensor([[0.5, 0.0, 1.0]]), torch.zeros(1, 3, dtype=torch.bool), keep_unused=True)
    assert mesh.vertices.tolist() == [[10.75, 20.5, 30.5]]
    assert mesh.to_meshes()[0].up == "z"


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dual of another length": ({"dual": torch.zeros(3, 3)}, ShapeError, r"dual must be \(4, 3\)"),
    "dual of four columns": ({"dual": torch.zeros(4, 4)}, ShapeError, r"got \(4, 4\)"),
    "half dual": ({"dual": torch.zeros(4, 3).half()}, DtypeError, "float32 or float64; got .* float16"),
    "integer dual": ({"dual": torch.zeros(4, 3).long()}, DtypeError, "int64"),
    "packed flags": ({"intersected": torch.zeros(4, dtype=torch.uint8)}, ShapeError, "One flag for each cell"),
    "logits": ({"intersected": torch.zeros(4, 3)}, DtypeError, "Use logits > 0"),
    "signs of another length": ({"crossing_sign": torch.zeros(5, 3).bool()}, ShapeError, "crossing_sign"),
    "three weights": ({"split_weight": torch.zeros(3)}, ShapeError, r"must be \(4,\) or \(4, 1\).*got \(3,\)"),
    "weights of two columns": ({"split_weight": torch.zeros(4, 2)}, ShapeError, r"got \(4, 2\)"),
    "double weights": ({"split_weight": torch.zeros(4).double()}, DtypeError, "dtype of dual"),
    "weights elsewhere": ({"split_weight": torch.zeros(4, device="meta")}, DeviceError, "split_weight on meta"),
    "no weights": ({"split": "weight"}, RangeError, "needs split_weight"),
    "unknown rule": ({"split": "shortest"}, RangeError, "'angle'"),
    "rule in training": ({"split": "first", "training": True}, RangeError, "leave it out"),
    "unknown compat": ({"compat": "trellis"}, RangeError, "'trellis2'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str, one_quad: dict[str, Any]) -> None:
    change, error, message = BAD[case]
    del one_quad["split_weight"]
    with pytest.raises(error, match=message):
        dual_faces(**{**one_quad, **change})


def test_too_many_cells_for_their_numbers() -> None:
    grid = VoxelGrid(torch.zeros(1, 4, dtype=torch.int32).expand(2**29, 4), (4, 4, 4), 1, UNIT)
    dual, flags = torch.zeros(1, 3).expand(2**29, 3), torch.zeros(1, 3).bool().expand(2**29, 3)
    with pytest.raises(CapacityError, match="Split the batch"):
        dual_faces(grid, dual, flags, training=True)
