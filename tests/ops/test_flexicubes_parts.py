"""FlexiCubes on sparse cells: parts, slabs, batches, gradients, empty results, bad input."""

from __future__ import annotations

import warnings

import pytest
import torch
from flexicubes_inputs import ball, extract, lattice, report_of
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.ops.flexicubes import (
    OP,
    FlexInputs,
    average_at_corners,
    crossing_deviation,
    cube_corners,
    flexicubes,
    flexicubes_in_slabs,
)
from voxgen.testing.cases.flexicubes import noise
from voxgen.testing.grids import full_grid, random_grid

ENGINES = list(OP.backends)


# parts, slabs, batches


def test_a_part_is_what_the_whole_has_there() -> None:
    grid = random_grid((700, 500), 9, 3)
    inputs = FlexInputs(**noise(grid, 4))
    keep = torch.rand(len(grid), generator=torch.Generator().manual_seed(5)) < 0.7
    for training in (False, True):
        whole = extract(grid, inputs, training=training, keep_unused=True)
        part = extract(grid, inputs, training=training, keep_unused=True, keep=keep)
        kept = torch.where(whole.vertex_cell >= 0, keep[whole.vertex_cell.clamp_min(0).long()], False)
        assert torch.equal(part.vertices[part.vertex_cell >= 0], whole.vertices[kept])
        wanted = kept[whole.quads.long()].all(1)
        found = whole.vertices[whole.quads[wanted].long()]
        assert torch.equal(part.vertices[part.quads.long()], found)
        if training:
            centres = whole.vertices[whole.vertex_cell < 0]
            assert torch.equal(part.vertices[part.vertex_cell < 0], centres[wanted])


@pytest.mark.parametrize("cells", [1, 150, 600, 10_000])
def test_slabs_give_the_same_surface(cells: int) -> None:
    for grid in (random_grid((700, 0, 900), 13, 1), random_grid((60, 5), 40, 2)):
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(len(grid), 8, 4, generator=generator)
        weights = torch.rand(len(grid), 21, generator=generator) + 0.1

        def field(part: VoxelGrid, rows: slice, values: Tensor = values, weights: Tensor = weights) -> FlexInputs:
            mean = average_at_corners(values[rows], cube_corners(part))
            w = weights[rows]
            return FlexInputs(mean[:, 0], lattice(part, torch.float32) + 0.01 * mean[:, 1:].tanh(), w[:, :8], w[:, 8:20], w[:, 20])

        for training in (False, True):
            whole = extract(grid, field(grid, slice(0, len(grid))), training=training)
            slabs = flexicubes_in_slabs(grid, field, cells=cells, training=training, keep_unused=False)
            for name in ("vertices", "faces", "quads", "vertex_offsets", "face_offsets", "vertex_cell", "vertex_edges"):
                assert torch.equal(getattr(slabs, name), getattr(whole, name)), name
    with pytest.raises(RangeError, match="made in slabs"):
        slabs.crossings()


def test_slabs_of_nothing() -> None:
    none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=4, batch_size=2)
    surface = flexicubes_in_slabs(none, lambda part, _: FlexInputs(torch.zeros(0)))
    assert surface.vertices.shape == (0, 3)
    assert surface.face_offsets.tolist() == [0, 0, 0]
    with pytest.warns(EmptyResultWarning, match="no cell has corners of both signs"):
        flexicubes_in_slabs(full_grid(3), lambda part, _: FlexInputs(torch.ones(len(cube_corners(part)))), cells=9)
    with pytest.raises(ShapeError, match="flexicubes_in_slabs: sdf must be"):
        flexicubes_in_slabs(full_grid(3), lambda part, _: FlexInputs(torch.ones(3)), cells=9)


@pytest.mark.parametrize("compat", [None, "triposf"])
@pytest.mark.parametrize("backend", ENGINES)
def test_samples_are_alone_in_any_batch(backend: str, compat: str | None) -> None:
    grid = random_grid((200, 0, 330, 1), 8)
    corners, inputs = cube_corners(grid), FlexInputs(**noise(grid))
    whole = extract(grid, inputs, training=True, compat=compat, backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        for sample in range(4):
            at_corners, at_cells = (slice(*o[sample : sample + 2].tolist()) for o in (corners.offsets, grid.offsets))
            rows = FlexInputs(*(t[at_corners] for t in inputs[:2] if t is not None), *(t[at_cells] for t in inputs[2:] if t is not None))
            alone = extract(grid.sample(sample), rows, training=True, compat=compat, backend=backend)
            v0, v1 = whole.vertex_offsets[sample : sample + 2].tolist()
            f0, f1 = whole.face_offsets[sample : sample + 2].tolist()
            assert torch.equal(whole.vertices[v0:v1], alone.vertices)
            assert torch.equal(whole.faces[f0:f1] - v0, alone.faces)
    assert [len(mesh.faces) for mesh in whole.to_meshes()] == whole.face_offsets.diff().tolist()


# gradients


@pytest.mark.parametrize("backend", ENGINES)
def test_gradients_are_those_of_the_formula(backend: str) -> None:
    grid = random_grid((30,), 4)
    inputs = {name: value.requires_grad_() for name, value in noise(grid, 2).items()}

    def surface(*values: Tensor) -> tuple[Tensor, ...]:
        found = extract(grid, FlexInputs(*values), training=True, keep_unused=True, backend=backend)
        points, vertex = found.crossings()
        return found.vertices, points, crossing_deviation(found.vertices, points, vertex)

    assert torch.autograd.gradcheck(surface, tuple(inputs.values()), fast_mode=True)
    assert torch.autograd.gradcheck(lambda sdf: flexicubes(grid, sdf, backend=backend).vertices, (inputs["sdf"],))


@pytest.mark.parametrize("backend", ENGINES)
def test_no_surface_is_a_warning_and_a_gradient_of_0(backend: str) -> None:
    grid = full_grid(4)
    for value, why in ((0.1, r"all corners are positive or 0 \(outside\)"), (-0.1, r"all corners are negative \(inside\)")):
        sdf = torch.full((125,), value, requires_grad=True)
        gamma = torch.full((64,), 0.5, requires_grad=True)
        with pytest.warns(EmptyResultWarning, match=why):
            surface = flexicubes(grid, sdf, gamma=gamma, training=True, backend=backend)
        assert surface.vertices.shape == (0, 3)
        assert surface.faces.shape == (0, 3)
        (gradient,) = torch.autograd.grad(surface.vertices.sum() + surface.deviation().sum(), sdf)
        assert torch.equal(gradient, torch.zeros(125))
    one = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=1, batch_size=1)
    with pytest.warns(EmptyResultWarning, match="no edge that changes sign has all of its four cells"):
        single = flexicubes(one, torch.tensor([-1.0, 1, 1, 1, 1, 1, 1, 1]), keep_unused=True, backend=backend)
    # the middle of the edges' middles at corner 0
    torch.testing.assert_close(single.vertices, torch.full((1, 3), 1 / 6 - 0.5))
    with pytest.warns(EmptyResultWarning, match="no cell that is kept"):
        flexicubes(grid, ball(grid), keep=torch.zeros(64, dtype=torch.bool), backend=backend)
    apart = VoxelGrid.from_sorted(torch.tensor([[0, 0, 0, 0], [0, 2, 2, 2]], dtype=torch.int32), resolution=3, batch_size=1)
    with pytest.warns(EmptyResultWarning, match="no cell has corners of both signs"):
        flexicubes(apart, torch.tensor([-1.0] * 8 + [1.0] * 8), backend=backend)


@pytest.mark.parametrize("backend", ENGINES)
def test_tiny_values_have_their_crossing_in_the_middle(backend: str) -> None:
    """The signs say that there is a zero, even where products of values and weights round to 0."""
    grid = full_grid(2)
    smallest = 1e-45  # half of the least step of float32 times 1.4
    at = cube_corners(grid).coords[:, 1:]
    sdf = torch.where((at == 1).all(1), -smallest, smallest).requires_grad_()
    alpha = torch.full((8, 8), 0.01)
    surface = flexicubes(grid, sdf, alpha=alpha, backend=backend)
    assert report_of(surface).is_closed
    torch.testing.assert_close(surface.vertices.abs(), torch.full((8, 3), 1 / 12))
    (gradient,) = torch.autograd.grad(surface.vertices.sum(), sdf)
    assert torch.equal(gradient, torch.zeros(27))


def test_moving_the_field_moves_the_volume_by_the_area() -> None:
    grid = full_grid(24)
    sdf = ball(grid).requires_grad_()
    surface = flexicubes(grid, sdf)
    a, b, c = surface.vertices[surface.faces.long()].unbind(1)
    ((a * torch.linalg.cross(b, c)).sum() / 6).backward()
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2
    assert sdf.grad is not None
    assert float(sdf.grad.sum()) == pytest.approx(-float(area.detach()), rel=0.01)  # the mesh is a polyhedron in the sphere


# bad input


def test_bad_input() -> None:
    grid = full_grid(3)
    sdf = ball(grid).float()
    with pytest.raises(ShapeError, match=r"flexicubes: sdf must be \(64,\).*One value a corner, in the order of cube_corners"):
        flexicubes(grid, sdf[:27])
    with pytest.raises(DtypeError, match="sdf"):
        flexicubes(grid, sdf.int())
    with pytest.raises(ShapeError, match=r"positions must be \(64, 3\)"):
        flexicubes(grid, sdf, torch.zeros(27, 3))
    for name, good in (("alpha", torch.ones(27, 8)), ("beta", torch.ones(27, 12)), ("gamma", torch.ones(27))):
        with pytest.raises(ShapeError, match=name):
            extract(grid, FlexInputs(sdf)._replace(**{name: good[:26]}))
        with pytest.raises(RangeError, match=rf"{name} must be finite; 1 of 27 rows"):
            extract(grid, FlexInputs(sdf)._replace(**{name: good.index_fill(0, torch.tensor([5]), torch.nan)}))
        with pytest.raises(RangeError, match=rf"{name} must .*; its smallest value is -1. Raw channels\?"):
            extract(grid, FlexInputs(sdf)._replace(**{name: -good}))
    with pytest.raises(RangeError, match="sdf must be finite; 1 of 64 rows are not, the first is row 7"):
        flexicubes(grid, sdf.index_fill(0, torch.tensor([7]), torch.inf))
    with pytest.raises(DeviceError, match="one device"):
        flexicubes(grid, sdf.to("meta"))
    with pytest.raises(ShapeError, match="keep"):
        flexicubes(grid, sdf, keep=torch.ones(26, dtype=torch.bool))
    with pytest.raises(DtypeError, match="keep"):
        flexicubes(grid, sdf, keep=torch.ones(27))
    with pytest.raises(RangeError, match="compat must be one of 'triposf'"):
        flexicubes(grid, sdf, compat="trellis")  # pyright: ignore[reportArgumentType]


def test_half_types_strided_input_and_dtypes() -> None:
    grid = full_grid(8)
    sdf = ball(grid)
    assert flexicubes(grid, sdf).vertices.dtype == torch.float64
    half = flexicubes(grid, sdf.half())
    assert half.vertices.dtype == torch.float32
    assert torch.equal(half.vertices, flexicubes(grid, sdf.half().float()).vertices)
    inputs = {name: value.float() for name, value in noise(grid).items()}
    expected = extract(grid, FlexInputs(**inputs))
    strided = {n: torch.stack((t, t), -1)[..., 0] for n, t in inputs.items()}
    assert torch.equal(extract(grid, FlexInputs(**strided)).vertices, expected.vertices)
    mixed = extract(grid, FlexInputs(**{n: t.double() if n == "beta" else t for n, t in inputs.items()}))
    assert mixed.vertices.dtype == torch.float64
    gamma = inputs["gamma"].half()
    rounded = [flexicubes(grid, inputs["sdf"], gamma=g, training=True).vertices for g in (gamma, gamma.float())]
    assert torch.equal(rounded[0], rounded[1])
