"""Levels of a hierarchy: structures, pooling, subdivision, space to channel; the original's values; bad input."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, EmptyResultWarning, FrameError, RangeError, ShapeError
from voxgen.ops.resample import Structure, channel_to_space, pool, space_to_channel, subdivide
from voxgen.testing.compare import difference
from voxgen.testing.grids import fresh, full_grid, random_coords, random_grid

ENGINES = ["torch", "reference"]
GOLDEN = Path(__file__).parents[1] / "golden"


def feats_of(grid: VoxelGrid, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(len(grid), channels, dtype=dtype)


def check(structure: Structure) -> None:
    """The defining equations of a structure."""
    f = torch.tensor([1, *structure.factor], dtype=torch.int32)
    assert torch.equal(structure.children.coords // f, structure.parents.coords[structure.parent.long()])
    x, y, z = (structure.children.cells % f[1:]).unbind(1)
    assert torch.equal(structure.slot, x + structure.factor[0] * (y + structure.factor[1] * z))
    rows = torch.arange(len(structure.children), dtype=torch.int32)
    assert torch.equal(structure.table[structure.parent.long(), structure.slot.long()], rows)
    assert int((structure.table >= 0).sum()) == len(structure.children)


@pytest.mark.parametrize("factor", [2, 3, (1, 2, 4)])
def test_structures(factor: Any) -> None:
    grid = random_grid((50, 0, 30), 13)
    down = Structure.of_children(grid, factor)
    check(down)
    up = Structure.of_mask(down.parents, down.mask(), factor)
    check(up)
    assert torch.equal(up.children.coords, grid.coords)
    slow = Structure.of_mask(down.parents, down.mask("x_slowest"), factor, order="x_slowest")
    assert torch.equal(slow.children.coords, grid.coords)
    assert torch.equal(slow.slot, down.slot)
    check(Structure.of_mask(grid, None, factor))
    lone = torch.tensor([[1, 0, 0, 0]], dtype=torch.int32)  # a cell without children, in a sample that has none
    coarse = down.parents
    more = VoxelGrid.build(torch.cat((coarse.coords, lone)), resolution=coarse.resolution, batch_size=3, frame=coarse.frame)[0]
    between = Structure.between(more, grid, factor)
    check(between)
    assert len(between.parents) == len(down.parents) + 1


def test_structures_share_their_lists_and_leak_nothing() -> None:
    grid = random_grid((30,), 9)
    down = Structure.of_children(grid)
    assert Structure.of_children(grid).parents is down.parents
    assert Structure.of_children(grid).table is down.table
    with torch.inference_mode():
        subdivide(feats_of(down.parents), down)
    pool(feats_of(grid).requires_grad_(), down).sum().backward()  # lists made in inference serve training
    dropped = weakref.ref(grid)
    gc.disable()  # so that a cycle would stay
    try:
        del grid, down
        assert dropped() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", ENGINES)
def test_pooling_is_what_a_loop_finds(engine: str) -> None:
    grid = random_grid((40, 0, 30), 9)
    down, feats = Structure.of_children(grid), feats_of(grid)
    groups = [feats[(down.parent == p).nonzero()[:, 0]] for p in range(len(down.parents))]
    expected = {
        "sum": torch.stack([g.sum(0) for g in groups]),
        "mean": torch.stack([g.mean(0) for g in groups]),
        "mean_plus_one": torch.stack([g.sum(0) / (len(g) + 1) for g in groups]),
        "max": torch.stack([g.amax(0) for g in groups]),
    }
    assert {len(g) for g in groups} >= {1, 2}
    for how, values in expected.items():
        assert difference(pool(feats, down, how, backend=engine), values) < 1e-14  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("engine", ENGINES)
def test_parents_without_children_get_zero(engine: str) -> None:
    coarse = full_grid(2)
    fine = VoxelGrid.build(torch.tensor([[0, 3, 3, 3]], dtype=torch.int32), resolution=4)[0]
    structure = Structure.between(coarse, fine)
    for how in ("mean", "mean_plus_one", "sum", "max"):
        out = pool(torch.full((1, 2), -4.0), structure, how, backend=engine)  # pyright: ignore[reportArgumentType]
        assert out[:7].abs().max() == 0
        assert (out[7] == (-2 if how == "mean_plus_one" else -4)).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ["x_fastest", "x_slowest"])
def test_space_to_channel_and_back(engine: str, order: Any) -> None:
    grid = random_grid((40, 0, 30), 9)
    down, feats = Structure.of_children(grid), feats_of(grid)
    wide = space_to_channel(feats, down, order=order, backend=engine)
    x, y, z = (grid.cells[11] % 2).tolist()
    slot = x + 2 * y + 4 * z if order == "x_fastest" else 4 * x + 2 * y + z
    row = int(down.parent[11])
    assert torch.equal(wide[row, 3 * slot : 3 * slot + 3], feats[11])
    assert torch.equal(channel_to_space(wide, down, order=order, backend=engine), feats)
    assert difference(wide.view(-1, 8, 3).sum(1), pool(feats, down, "sum", backend=engine)) < 1e-14
    assert torch.equal(wide.view(-1, 8, 3).abs().sum(2) > 0, down.mask(order))


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients(engine: str) -> None:
    grid = random_grid((7, 0, 5), 4)
    down = Structure.of_children(grid)
    fine = feats_of(grid, 2).requires_grad_()
    coarse = feats_of(down.parents, 16).requires_grad_()
    for function in (
        lambda x: pool(x, down, "mean", backend=engine),
        lambda x: pool(x, down, "mean_plus_one", backend=engine),
        lambda x: pool(x, down, "max", backend=engine),
        lambda x: space_to_channel(x, down, backend=engine),
    ):
        assert torch.autograd.gradcheck(function, fine)
    for function in (lambda x: subdivide(x, down, backend=engine), lambda x: channel_to_space(x, down, order="x_slowest", backend=engine)):
        assert torch.autograd.gradcheck(function, coarse)
        assert torch.autograd.gradgradcheck(function, coarse)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_maxima_share_the_gradient(engine: str) -> None:
    grid = full_grid(2)
    feats = torch.tensor([[1.0], [3], [3], [0], [3], [1], [1], [2]], requires_grad=True)
    pool(feats, Structure.of_children(grid), "max", backend=engine).backward(torch.tensor([[6.0]]))
    assert feats.grad is not None
    assert feats.grad[:, 0].tolist() == [0, 2, 2, 0, 2, 0, 0, 0]


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=4), seed=st.integers(0, 1000), engine=st.sampled_from(ENGINES))
def test_order_and_batch_do_not_matter(counts: list[int], seed: int, engine: str) -> None:
    torch.manual_seed(seed)
    coords, feats = random_coords(counts, 7, seed), torch.randn(sum(counts), 3)
    x = SparseTensor.build(coords, feats, resolution=7, batch_size=len(counts))
    down = Structure.of_children(x.grid)
    for how in ("mean", "mean_plus_one", "max"):
        out = pool(x.feats, down, how, backend=engine)  # pyright: ignore[reportArgumentType]
        shuffle = torch.randperm(len(coords))
        other = SparseTensor.build(coords[shuffle], feats[shuffle], resolution=7, batch_size=len(counts))
        assert torch.equal(pool(other.feats, Structure.of_children(other.grid), how, backend=engine), out)  # pyright: ignore[reportArgumentType]
        parts = [pool(part.feats, Structure.of_children(part.grid), how, backend=engine) for part in x.unbind()]  # pyright: ignore[reportArgumentType]
        assert torch.equal(torch.cat(parts), out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    grid = full_grid(8)
    feats = torch.rand(512, 1).to(dtype) + 1
    for engine in ENGINES:
        out = pool(feats, Structure.of_children(grid, 8), backend=engine)
        assert torch.equal(out, feats.double().mean(0, keepdim=True).to(dtype))


def test_nan_stays_with_its_parent() -> None:
    grid = random_grid((40,), 9)
    down, feats = Structure.of_children(grid), feats_of(grid)
    feats[5] = float("nan")
    hit = torch.arange(len(down.parents)) == down.parent[5]
    for engine in ENGINES:
        for how in ("mean", "max"):
            assert torch.equal(pool(feats, down, how, backend=engine).isnan().all(1), hit)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("engine", ENGINES)
def test_original_values(engine: str) -> None:
    arrays = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN / "trellis2_blocks.npz").items()}
    coords = arrays["coords"]
    x = SparseTensor.build(coords, torch.from_numpy(recipe.normal("x", (190, 16), 0)), resolution=int(coords[:, 1:].max()) + 1)
    order = VoxelGrid.build(coords, resolution=x.grid.resolution)[1]
    down = Structure.of_children(x.grid)
    assert torch.equal(down.parents.coords, arrays["s2c_coords"])
    assert torch.equal(down.parent, arrays["s2c_parent"][order])
    assert torch.equal(down.slot, arrays["s2c_child"][order].int())
    assert torch.equal(down.mask(), arrays["s2c_subdivision"])
    assert torch.equal(space_to_channel(x.feats, down, backend=engine), arrays["s2c_rearranged"])
    shortcut = space_to_channel(x.feats, down, backend=engine).view(125, 32, 4).mean(2)
    assert difference(shortcut, arrays["s2c_shortcut"]) < 1e-6
    wide = torch.from_numpy(recipe.normal("wide", (125, 32), 0))
    up = channel_to_space(wide, down, backend=engine).repeat_interleave(4, 1)
    assert difference(up, arrays["c2s_shortcut"][order]) < 1e-6


def test_original_values_of_the_sheet() -> None:
    coords = torch.tensor([[0, *map(int, c)] for c in ("000", "100", "111", "211", "332", "322")], dtype=torch.int32)
    n, c = torch.meshgrid(torch.arange(6.0), torch.arange(2.0), indexing="ij")
    x = SparseTensor.build(coords, torch.sin(0.3 * n + 0.11 * c), resolution=4)
    down = Structure.of_children(x.grid)
    assert down.parents.cells.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1]]
    expected = [0, 0.109778, 0.295520, 0.398609, *[0] * 10, 0.564642, 0.651834]
    assert space_to_channel(x.feats, down)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_compiles_as_one_graph() -> None:
    torch.compiler.reset()

    def levels(feats: Tensor, down: Structure) -> Tensor:
        coarse = pool(feats, down, "max") + pool(feats, down)
        return channel_to_space(space_to_channel(feats, down), down) + subdivide(coarse, down)

    compiled = torch.compile(levels, backend="aot_eager", fullgraph=True)
    for counts in ((20, 0, 10), (15, 5, 12)):
        grid = random_grid(counts, 6)
        down, feats = Structure.of_children(grid), feats_of(grid).requires_grad_()
        actual, expected = compiled(feats, down), levels(feats, down)
        assert difference(actual, expected) < 1e-12
        assert difference(*(torch.autograd.grad(t.square().sum(), feats)[0] for t in (actual, expected))) < 1e-12


@pytest.mark.parametrize("kind", ["add", "max", "place"])
def test_operators_are_registered_soundly(kind: str) -> None:
    links = Structure.of_children(random_grid((9, 0, 5), 5)).links
    feats = torch.randn(14, 2, dtype=torch.float64, requires_grad=True)
    rows = links.parent, links.slot, *links.groups
    torch.library.opcheck(torch.ops.voxgen.children_to_parents.default, (feats, *rows, 8, kind))
    if kind == "place":
        coarse = torch.randn(links.num_parents, 16, requires_grad=True)
        torch.library.opcheck(torch.ops.voxgen.parents_to_children.default, (coarse, *rows, 8))


def test_a_mask_that_keeps_nothing() -> None:
    grid = random_grid((4, 0), 8)
    with pytest.warns(EmptyResultWarning, match="keeps no child of any of 4 cells"):
        up = Structure.of_mask(grid, torch.zeros(4, 8, dtype=torch.bool))
    assert subdivide(feats_of(grid), up).shape == (0, 3)
    assert up.children.batch_size == 2
    assert len(Structure.of_mask(random_grid((0,), 8)).children) == 0  # nothing in, nothing out, no warning


def test_bad_input() -> None:
    grid = random_grid((20,), 8)
    down = Structure.of_children(grid)
    with pytest.raises(ShapeError, match=r"pool: feats must be \(20, c\).*structure.children"):
        pool(torch.randn(19, 3), down)
    with pytest.raises(ShapeError, match=r"subdivide: feats must be .*structure.parents"):
        subdivide(torch.randn(20, 3), down)
    with pytest.raises(DtypeError):
        pool(torch.ones(20, 3, dtype=torch.int64), down)
    with pytest.raises(RangeError, match="how must be one of 'mean'"):
        pool(torch.randn(20, 3), down, "average")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="multiple of the 8 children"):
        channel_to_space(torch.randn(len(down.parents), 12), down)
    with pytest.raises(RangeError, match="order must be"):
        space_to_channel(torch.randn(20, 3), down, order="z_fastest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DeviceError):
        pool(torch.randn(20, 3, device="meta"), down)
    with pytest.raises(RangeError, match="factor"):
        Structure.of_children(grid, 0)
    with pytest.raises(ShapeError, match="one column a child"):
        Structure.of_mask(grid, torch.ones(20, 27, dtype=torch.bool))
    with pytest.raises(RangeError, match=r"must have its parent in parents; \d+ of 20"):
        Structure.between(fresh(down.parents).select(torch.arange(2)), grid)
    with pytest.raises(FrameError):
        Structure.between(random_grid((9,), 8), grid)
    moved = VoxelGrid.from_sorted(down.parents.coords, resolution=4, batch_size=1, frame=Frame((1, 1, 1), (0.25, 0.25, 0.25)))
    with pytest.raises(FrameError):
        Structure.between(moved, grid)
    with pytest.raises(RangeError, match="one batch_size"):
        Structure.between(random_grid((1, 1), 4), grid)
