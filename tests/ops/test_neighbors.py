"""Neighbour tables: defining equation at scale, symmetry, transposition, given outputs, caching, errors."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from voxgen.core import VoxelGrid
from voxgen.core.errors import BackendUnavailable, CapacityError, DeviceError, FrameError, RangeError
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.grids import fresh, full_grid, random_grid

BACKENDS = ["numba", "torch", "reference"]


def grid_of(coords: list[list[int]], resolution: int, batch_size: int = 1) -> VoxelGrid:
    return VoxelGrid.build(torch.tensor(coords, dtype=torch.int32), resolution=resolution, batch_size=batch_size)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend: str) -> None:
    table = neighbor_table(grid_of([[0, 1, 1, 1], [0, 1, 1, 2], [0, 2, 1, 1]], 4), backend=backend).table
    expected = torch.full((3, 27), -1, dtype=torch.int32)
    expected[:, 13] = torch.arange(3)  # the cell itself
    expected[0, 14], expected[1, 12] = 1, 0  # z fastest
    expected[0, 22], expected[2, 4] = 2, 0  # x slowest
    expected[1, 21], expected[2, 5] = 2, 1  # (+1, 0, -1) and back
    assert torch.equal(table, expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_defining_equation_at_scale(backend: str) -> None:
    grid = random_grid((30_000, 0, 20_000), 200, seed=1)
    table = neighbor_table(grid, dilation=(1, 2, 1), backend=backend).table.long()
    offsets = torch.tensor([[0, x, 2 * y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    wanted = grid.coords[:, None] + offsets
    found = table >= 0
    assert torch.equal(grid.coords[table[found]], wanted[found].int())
    assert torch.equal(found, (grid.rows_of(wanted.reshape(-1, 4).int()) >= 0).reshape(found.shape))


def test_submanifold_is_its_own_transpose() -> None:
    table = neighbor_table(random_grid((300, 200), 20), kernel_size=(3, 1, 5))
    rows = table.table.long()
    output, k = (rows >= 0).nonzero().unbind(1)
    assert table.is_symmetric
    assert torch.equal(rows[rows[output, k], table.volume - 1 - k], output)
    assert torch.equal(table.transposed().table, table.table.flip(1))


@pytest.mark.parametrize(
    "options", [{"stride": 2, "kernel_size": 2}, {"stride": 2}, {"stride": (1, 2, 3), "padding": 1, "sites": "window"}]
)
def test_transposed_reverses_every_pair(options: dict[str, object]) -> None:
    table = neighbor_table(random_grid((90, 0, 50), 15), **options)  # pyright: ignore[reportArgumentType]
    back = table.transposed()
    output, k = (table.table >= 0).nonzero().unbind(1)
    assert torch.equal(back.table[table.table[output, k].long(), k].long(), output)
    assert int((back.table >= 0).sum()) == table.num_pairs() == back.num_pairs()
    assert back.in_grid is table.out_grid
    assert back.out_grid is table.in_grid
    assert torch.equal(back.transposed().table, table.table)


@pytest.mark.parametrize("backend", BACKENDS)
def test_onto_a_given_grid_agrees_with_the_transposed_table(backend: str) -> None:
    fine = random_grid((80, 0, 30), 16)
    down = neighbor_table(fine, kernel_size=3, stride=2, backend=backend)
    up = neighbor_table(down.out_grid, kernel_size=3, stride=2, transposed=True, out_grid=fine, backend=backend)
    assert torch.equal(up.table, down.transposed().table)
    assert up.out_grid is fine


def test_generative_makes_all_children() -> None:
    up = neighbor_table(grid_of([[0, 1, 0, 2]], 3), kernel_size=2, stride=2, transposed=True)
    assert up.out_grid.resolution == (6, 6, 6)
    assert up.out_grid.coords.tolist() == [[0, 2 + x, y, 4 + z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    assert torch.equal(up.table, torch.where(torch.eye(8, dtype=torch.bool), 0, -1).int())
    assert up.out_grid.frame.isclose(up.in_grid.frame.refine(2))


def test_window_sites_are_the_extent_of_a_dense_convolution() -> None:
    grid = full_grid((7, 6, 5))
    table = neighbor_table(grid, kernel_size=3, stride=2, sites="window")
    shape = torch.nn.functional.conv3d(torch.zeros(1, 1, 7, 6, 5), torch.zeros(1, 1, 3, 3, 3), stride=2, padding=1).shape
    assert table.out_grid.resolution == tuple(shape[2:])
    assert len(table.out_grid) == shape[2:].numel()


def test_floor_and_window_agree_where_windows_tile_the_grid() -> None:
    grid = random_grid((60, 20), 16)
    floor = neighbor_table(grid, kernel_size=2, stride=2)
    window = neighbor_table(grid, kernel_size=2, stride=2, sites="window")
    assert torch.equal(floor.out_grid.coords, window.out_grid.coords)
    assert torch.equal(floor.table, window.table)


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_do_not_wrap_around(backend: str) -> None:
    end_of_line = grid_of([[0, 0, 0, 7], [0, 0, 1, 0], [0, 7, 7, 7], [1, 0, 0, 0]], 8, batch_size=2)
    table = neighbor_table(end_of_line, backend=backend).table
    assert (table >= 0).sum() == 4  # each cell meets itself only
    corner = grid_of([[0, 7, 7, 7], [0, 8, 8, 8]], 9)
    assert (neighbor_table(corner, backend=backend).table >= 0).sum() == 4


def test_tables_are_built_once_and_shared() -> None:
    grid = random_grid((40,), 16)
    first = neighbor_table(grid)
    assert neighbor_table(grid, kernel_size=(3, 3, 3), padding=1, backend="torch").table is first.table
    assert neighbor_table(grid, out_grid=grid).table is first.table
    assert neighbor_table(grid, dilation=2).table is not first.table
    down = neighbor_table(grid, stride=2)
    assert neighbor_table(grid, stride=2).out_grid is down.out_grid
    assert neighbor_table(grid, stride=2, kernel_size=2).out_grid is down.out_grid
    other = fresh(down.out_grid)
    onto = neighbor_table(grid, stride=2, out_grid=other)
    assert neighbor_table(grid, stride=2, out_grid=other).table is onto.table


def test_a_grid_that_is_dropped_frees_its_tables() -> None:
    grid = random_grid((40,), 16)
    given = neighbor_table(grid, stride=2, out_grid=fresh(neighbor_table(grid, stride=2).out_grid))
    neighbor_table(grid).transposed()
    dropped = weakref.ref(grid)
    gc.disable()  # so that a cycle would stay
    try:
        del grid, given
        assert dropped() is None
    finally:
        gc.enable()


def test_bad_input() -> None:
    grid = random_grid((10,), 8)
    with pytest.raises(RangeError, match=r"even kernel_size has no middle.*\(2, 3, 3\)"):
        neighbor_table(grid, kernel_size=(2, 3, 3))
    with pytest.raises(RangeError, match="even kernel_size"):
        neighbor_table(grid, kernel_size=4, stride=2)
    for name in ("kernel_size", "dilation", "stride"):
        with pytest.raises(RangeError, match=rf"neighbor_table: {name} must be at least 1|{name} must be from 1"):
            neighbor_table(grid, **{name: 0})  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="sites must be one of 'floor', 'window'"):
        neighbor_table(grid, stride=2, sites="ceil")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="no window of"):
        neighbor_table(grid, kernel_size=9, padding=0, sites="window")
    with pytest.raises(RangeError, match="batch_size, 1; got 2"):
        neighbor_table(grid, out_grid=random_grid((1, 1), 8))
    with pytest.raises(FrameError, match="stride"):
        neighbor_table(grid, stride=2, out_grid=random_grid((4,), 8))
    with pytest.raises(DeviceError):
        neighbor_table(grid, out_grid=random_grid((4,), 8).to("meta"))
    with pytest.raises(CapacityError, match="smaller kernel_size"):
        neighbor_table(grid, kernel_size=65535)
    with pytest.raises(BackendUnavailable, match="numba: ready"):
        neighbor_table(grid, backend="cuda")


def test_tables_are_built_outside_the_graphs_of_the_compiler() -> None:
    def layer(grid: VoxelGrid) -> torch.Tensor:
        return neighbor_table(grid).table * 2

    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")
    for counts in ((12, 0), (9,)):  # new cells: the table must be built during the compiled call
        grid = random_grid(counts, 6)
        assert torch.equal(compiled(grid), neighbor_table(fresh(grid), backend="reference").table * 2)
