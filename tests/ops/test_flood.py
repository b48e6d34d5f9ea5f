"""Flood fill: what water reaches, through faces only, per sample. The engine agrees with the definition in tests/parity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.errors import CapacityError, DeviceError, RangeError
from voxgen.ops.flood import flood
from voxgen.testing.grids import full_grid, random_grid


def room(side: int, door: tuple[int, int, int] | None = None) -> VoxelGrid:
    """A closed box of walls one cell thick, one cell inside the grid, with or without a door."""
    cells = full_grid(side).cells
    walls = ((cells == 1) | (cells == side - 2)).any(1) & ((cells >= 1) & (cells <= side - 2)).all(1)
    if door is not None:
        walls &= ~(cells == torch.tensor(door)).all(1)
    return full_grid(side).select(walls)


def reached(wall: VoxelGrid) -> Tensor:
    cells = full_grid(wall.resolution, wall.batch_size)
    return flood(wall, cells.coords).view(wall.batch_size, *wall.resolution)


def test_a_closed_room_stays_dry_and_a_door_floods_it() -> None:
    dry = reached(room(9))[0]
    assert int(dry.sum()) == 9**3 - 7**3
    assert not bool(dry[4, 4, 4])
    for door in ((1, 4, 4), (4, 7, 4), (4, 4, 1)):
        wet = reached(room(9, door))[0]
        assert int((~wet).sum()) == len(room(9, door))
    assert torch.equal(reached(room(9, (1, 1, 4)))[0].sum(), dry.sum() + 1)  # an edge of the room: water goes through no diagonal


def test_walls_and_samples() -> None:
    wall = VoxelGrid.batched([room(7), room(7, (1, 3, 3)), VoxelGrid.from_sorted(room(7).coords[:0], resolution=7, batch_size=1)])
    wet = reached(wall)
    assert [bool(wet[s, 3, 3, 3]) for s in range(3)] == [False, True, True]
    assert not bool(flood(wall, wall.coords).any())


def test_order_of_the_questions_does_not_matter() -> None:
    wall = random_grid((500, 400), 10)
    cells = full_grid(10, 2).coords
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    assert torch.equal(flood(wall, cells)[order], flood(wall, cells[order]))
    assert len(flood(wall, cells[:0])) == 0


def test_bad_input() -> None:
    with pytest.raises(RangeError, match=r"must lie in \[0, 7\)"):
        flood(room(7), torch.tensor([[0, 7, 0, 0]], dtype=torch.int32))
    with pytest.raises(DeviceError, match="one device"):
        flood(VoxelGrid.from_sorted(room(7).coords.to("meta"), resolution=7, batch_size=1), torch.zeros(1, 4, dtype=torch.int32))
    huge = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=65536, batch_size=30)
    with pytest.raises(CapacityError, match="GiB"):
        flood(huge, torch.zeros(1, 4, dtype=torch.int32))
