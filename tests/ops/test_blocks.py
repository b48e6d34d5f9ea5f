"""Partitions of a grid, and the plan of spatial sparse attention."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import VoxelGrid
from voxgen.core.errors import CapacityError, RangeError
from voxgen.ops.blocks import SSAPlan, partition
from voxgen.testing.grids import full_grid, random_grid


@pytest.mark.parametrize(("size", "shift"), [(4, 0), (4, 2), ((2, 3, 5), (1, 0, 4)), (1, 0), (64, 0), (3, 7)])
def test_every_cell_is_in_the_block_of_its_coordinates(size: int, shift: int) -> None:
    grid = random_grid((60, 0, 41, 0), 17)
    blocks = partition(grid, size, shift)
    wanted = (grid.cells + torch.tensor(shift)) // torch.tensor(size)
    assert torch.equal(blocks.coords[blocks.block.long()], torch.cat((grid.batch[:, None], wanted.int()), 1))
    assert sorted(blocks.rows.tolist()) == list(range(len(grid)))
    assert torch.equal(blocks.block[blocks.rows.long()], torch.arange(len(blocks), dtype=torch.int32).repeat_interleave(blocks.counts))
    for start, end in zip(blocks.starts.tolist(), blocks.starts[1:].tolist(), strict=False):
        rows = blocks.rows[start:end].tolist()
        assert rows
        assert rows == sorted(rows)
    assert blocks.longest == int(blocks.counts.max())
    keys = [tuple(c) for c in blocks.coords.tolist()]
    assert keys == sorted(set(keys))
    assert [int((blocks.batch == b).sum()) for b in range(4)] == blocks.offsets.diff().tolist()
    feats = torch.randn(len(grid), 3)
    assert torch.equal(blocks.from_block_order(blocks.to_block_order(feats)), feats)


def test_partitions_are_kept_on_the_grid() -> None:
    grid = random_grid((30,), 9)
    assert partition(grid, 4) is partition(grid, (4, 4, 4))
    assert partition(grid, 4) is not partition(grid, 4, 1)


@pytest.mark.parametrize("grid", [random_grid((0, 0), 8), random_grid((), 8)])
def test_nothing(grid: VoxelGrid) -> None:
    blocks = partition(grid, 4, 2)
    assert len(blocks) == 0
    assert blocks.starts.tolist() == [0]
    assert blocks.longest == 0
    assert blocks.offsets.tolist() == [0] * (grid.batch_size + 1)
    plan = SSAPlan.build(grid)
    assert plan.sample_blocks.shape == (0, 2)


def test_shift_moves_the_lattice() -> None:
    """Windows of cells moved by the shift, without shift, hold the same rows."""
    grid = random_grid((80,), (11, 12, 13))
    moved = VoxelGrid.from_sorted(grid.coords + torch.tensor([0, 2, 2, 2]).int(), resolution=16, batch_size=1)
    assert torch.equal(partition(grid, 4, 2).block, partition(moved, 4).block)


def test_plan_folds_compression_tokens_into_their_blocks() -> None:
    grid = random_grid((150, 0, 70), 16)
    plan = SSAPlan.build(grid, compression_block=2, selection_block=4, window=5)
    assert torch.equal(plan.folding.coords, plan.selection.coords)
    up = plan.compression.parent.long()
    assert torch.equal(plan.folding.block[up], plan.selection.block)
    first, last = plan.sample_blocks.unbind(1)
    assert bool(((plan.selection.block >= first) & (plan.selection.block < last)).all())
    assert plan.windows(2).shift == (2, 2, 2)
    assert plan.windows(0) is plan.windows()
    feats = torch.randn(len(grid), 2, 3)
    assert torch.equal(plan.from_block_order(plan.to_block_order(feats)), feats)


def test_equal_blocks_fold_one_to_one() -> None:
    plan = SSAPlan.build(full_grid(6, 2), compression_block=3, selection_block=3)
    assert plan.folding.counts.unique().tolist() == [1]
    assert len(plan.compressed) == len(plan.selection) == 16


def test_bad_arguments() -> None:
    grid = random_grid((5,), 8)
    with pytest.raises(RangeError, match=r"compression_block must divide selection_block.*got 3 and 8"):
        SSAPlan.build(grid, compression_block=3)
    with pytest.raises(RangeError, match="window must be from 1"):
        SSAPlan.build(grid, window=0)
    with pytest.raises(RangeError, match=r"size\[1\] must be from 1"):
        partition(grid, (1, 0, 1))
    with pytest.raises(RangeError, match=r"shift.* must be from 0"):
        partition(grid, 4, -1)
    with pytest.raises(CapacityError, match="blocks must have coordinates below"):
        partition(random_grid((5,), 65536), 1, 1)
