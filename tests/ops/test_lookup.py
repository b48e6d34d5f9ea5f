"""Lookup of cells and the block index under it. Agreement of the engines is in tests/parity."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.errors import CapacityError, DtypeError, DuplicateError, RangeError, ShapeError
from voxgen.ops.lookup import BlockIndex, _index, _numba, _torch, block_index, lookup_cells
from voxgen.testing.cases.lookup import queries, random_grid

ENGINES = ("reference", "torch", "numba")
BUILDERS = {"torch": _torch.build_index, "numba": _numba.build_index}


def cells(*rows: tuple[int, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


def by_dictionary(grid: VoxelGrid, coords: Tensor) -> list[int]:
    rows = {tuple(cell): row for row, cell in enumerate(grid.coords.tolist())}
    return [rows.get(tuple(cell), -1) for cell in coords.tolist()]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("resolution", [1, 7, 8, 9, 17, (5, 20, 9)])
def test_finds_what_a_dictionary_finds(engine: str, resolution: int | tuple[int, int, int]) -> None:
    dense = torch.rand(3, *(resolution if isinstance(resolution, tuple) else (resolution,) * 3)) < 0.4
    dense[1] = False
    grid, _ = VoxelGrid.build(dense.nonzero().int(), resolution=resolution, batch_size=3)
    coords = queries(grid)
    rows = lookup_cells(grid, coords, backend=engine)
    assert rows.dtype == torch.int32
    assert rows.tolist() == by_dictionary(grid, coords)


@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_cells_anywhere(engine: str, data: st.DataObject) -> None:
    resolution = data.draw(st.tuples(*[st.sampled_from([1, 7, 8, 9, 30, 65536])] * 3))
    inside = st.tuples(st.integers(0, 3), *(st.integers(0, r - 1) for r in resolution))
    present = data.draw(st.lists(inside, unique=True, max_size=30))
    grid, _ = VoxelGrid.build(cells(*present), resolution=resolution, batch_size=5)
    word = st.integers(-(2**31), 2**31 - 1) | st.integers(-9, 70)
    coords = cells(*present, *data.draw(st.lists(st.tuples(word, word, word, word), max_size=30)))
    assert lookup_cells(grid, coords, backend=engine).tolist() == by_dictionary(grid, coords)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_wrap_around_between_rows_layers_and_samples(engine: str) -> None:
    last = 65535
    grid, _ = VoxelGrid.build(cells((0, 1, 2, last), (0, 1, last, 0), (1, 0, 0, 0)), resolution=65536, batch_size=2)
    absent = cells((0, 1, 3, -1), (0, 1, 1, last + 1), (0, 2, -1, 0), (0, 0, last + 1, 0), (0, last + 1, 0, 0), (2, -1, last, last))
    assert lookup_cells(grid, absent, backend=engine).tolist() == [-1] * len(absent)
    assert lookup_cells(grid, grid.coords, backend=engine).tolist() == [0, 1, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_that_touch_at_an_edge_or_a_corner(engine: str) -> None:
    for low, high in (((7, 7, 3), (8, 8, 3)), ((7, 7, 7), (8, 8, 8))):
        grid, _ = VoxelGrid.build(cells((0, *low), (0, *high)), resolution=16)
        around = cells(*((0, *p) for p in itertools.product((6, 7, 8, 9), repeat=3)))
        assert lookup_cells(grid, around, backend=engine).tolist() == by_dictionary(grid, around)


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_grids_samples_and_queries(engine: str) -> None:
    none = cells()
    for batch_size in (0, 1, 4):
        grid = VoxelGrid.from_sorted(none, resolution=8, batch_size=batch_size)
        assert lookup_cells(grid, none, backend=engine).tolist() == []
        assert lookup_cells(grid, cells((0, 0, 0, 0), (3, 7, 7, 7)), backend=engine).tolist() == [-1, -1]
    trailing = VoxelGrid.from_sorted(cells((1, 2, 3, 4)), resolution=8, batch_size=4)
    assert lookup_cells(trailing, cells((0, 2, 3, 4), (1, 2, 3, 4), (3, 2, 3, 4)), backend=engine).tolist() == [-1, 0, -1]


@pytest.mark.parametrize("limit", [0, _index.TABLE_LIMIT])
def test_both_builders_make_the_same_index(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "TABLE_LIMIT", limit)
    for grid in (random_grid(40, 3, 3000), random_grid(8, 1, 9000), random_grid(300, 40, 20), random_grid(8, 2, 0)):
        one, other = (build(grid) for build in BUILDERS.values())
        assert (one.table is None) == (other.table is None) == (limit == 0)
        assert torch.equal(one.leaves, other.leaves)
        assert torch.equal(one.blocks, other.blocks)
        if one.table is not None and other.table is not None:
            assert torch.equal(one.table, other.table)
        assert_layout(grid, one)


def assert_layout(grid: VoxelGrid, index: BlockIndex) -> None:
    """Every row stands where the docstring of BlockIndex says, and nothing else stands anywhere."""
    nx, ny, nz = index.counts
    b, x, y, z = grid.coords.long().unbind(1)
    address = ((b * nx + x // 8 + 1) * ny + y // 8 + 1) * nz + z // 8 + 1
    assert torch.equal(index.blocks, address.unique())
    leaf = torch.searchsorted(index.blocks, address) + 1
    assert torch.equal(index.leaves[leaf * 512 + x % 8 * 64 + y % 8 * 8 + z % 8], torch.arange(len(grid)).int())
    assert int((index.leaves >= 0).sum()) == len(grid)
    assert len(index.leaves) == 512 * (index.num_blocks + 1)
    if index.table is not None:
        assert int((index.table > 0).sum()) == index.num_blocks
        assert index.table[index.blocks].tolist() == list(range(1, index.num_blocks + 1))


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_without_a_table_the_rows_are_the_same(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "TABLE_LIMIT", 0)
    grid = random_grid(40, 3, 3000)
    coords = queries(grid)
    assert block_index(grid, backend=engine).table is None
    assert lookup_cells(grid, coords, backend=engine).tolist() == by_dictionary(grid, coords)


@pytest.mark.parametrize("limit", [0, _index.TABLE_LIMIT])
def test_neighbours_up_to_the_guard_need_no_bounds(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "TABLE_LIMIT", limit)
    grid = random_grid(9, 2, 900)
    reach = _index.GUARD_CELLS
    for step in itertools.product((-reach, 0, reach), repeat=3):
        coords = grid.coords + torch.tensor((0, *step), dtype=torch.int32)
        found = _torch.rows_near(block_index(grid), *coords.unbind(1))
        assert torch.equal(found, lookup_cells(grid, coords, backend="reference"))


def test_the_index_is_kept_on_its_grid() -> None:
    grid = random_grid(9, 1, 100)
    assert block_index(grid) is block_index(grid, backend="torch")
    assert block_index(grid) is not block_index(grid.select(torch.ones(len(grid), dtype=torch.bool)))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_cell_that_comes_twice_is_named(builder: str) -> None:
    grid = VoxelGrid.from_sorted(cells((0, 0, 0, 0), (0, 1, 2, 3), (0, 1, 2, 3)), resolution=8, batch_size=1)
    with pytest.raises(DuplicateError, match=r"\[0, 1, 2, 3\] comes twice"):
        BUILDERS[builder](grid)


@pytest.mark.parametrize("row", [(0, 3, 8, 3), (0, 3, -1, 3), (1, 3, 3, 3), (-1, 3, 3, 3), (0, 1, 0, 0)])
def test_the_compiled_builder_writes_nothing_out_of_bounds(row: tuple[int, int, int, int]) -> None:
    grid = VoxelGrid.from_sorted(cells((0, 1, 1, 1), row), resolution=8, batch_size=1)
    with pytest.raises(RangeError, match="row 1"):
        _numba.build_index(grid)


def test_bad_arguments() -> None:
    grid = random_grid(8, 1, 20)
    with pytest.raises(DtypeError, match=r"coords must be \(n, 4\) int32; got \(2, 4\) int64"):
        lookup_cells(grid, torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        lookup_cells(grid, torch.zeros(2, 3, dtype=torch.int32))
    huge = VoxelGrid(torch.zeros(1, 4, dtype=torch.int32).expand(2**31, 4), (8, 8, 8), 1, grid.frame)
    for call in (lambda: lookup_cells(huge, grid.coords), lambda: block_index(huge)):
        with pytest.raises(CapacityError, match="at most 2147483647"):
            call()
