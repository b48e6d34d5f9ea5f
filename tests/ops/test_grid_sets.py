"""Set operations on grids against Python sets; levels; bad input."""

from __future__ import annotations

import itertools

import pytest
import torch

from voxgen.core import Frame, VoxelGrid
from voxgen.core.errors import DtypeError, FrameError, RangeError, ShapeError
from voxgen.ops.grid_sets import child_offsets, children, difference, dilate, intersection, parent_rows, parents, union
from voxgen.testing.grids import full_grid, random_grid

Cell = tuple[int, ...]


def cells(grid: VoxelGrid) -> set[Cell]:
    rows = [tuple(row) for row in grid.coords.tolist()]
    assert rows == sorted(set(rows))  # unique and in order
    return set(rows)


A, B = random_grid((50, 0, 20), 12, seed=1), random_grid((40, 0, 30), 12, seed=2)


def test_boolean_operations() -> None:
    assert cells(union(A, B)) == cells(A) | cells(B)
    assert cells(intersection(A, B)) == cells(A) & cells(B)
    assert cells(difference(A, B)) == cells(A) - cells(B)
    assert cells(A) & cells(B)
    assert union(A, intersection(A, B)) is A
    assert len(difference(A, A)) == 0
    assert union(A, B).batch_size == 3


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 3, 3), (5, 1, 3)])
def test_dilation(size: tuple[int, int, int]) -> None:
    shifts = list(itertools.product(*(range(-(s // 2), s // 2 + 1) for s in size)))
    reached = {(b, x + i, y + j, z + k) for b, x, y, z in cells(A) for i, j, k in shifts}
    assert cells(dilate(A, size)) == {c for c in reached if all(0 <= v < 12 for v in c[1:])}


@pytest.mark.parametrize("factor", [(2, 2, 2), (3, 1, 5), (16, 16, 16)])
def test_parents_and_back(factor: tuple[int, int, int]) -> None:
    coarse = parents(A, factor)
    x, y, z = factor
    assert cells(coarse) == {(c[0], c[1] // x, c[2] // y, c[3] // z) for c in cells(A)}
    assert parents(A, factor) is coarse
    assert coarse.resolution == (-(-12 // x), -(-12 // y), -(-12 // z))
    rows = parent_rows(A, factor)
    assert torch.equal(coarse.coords[rows.long()], A.coords // torch.tensor([1, *factor], dtype=torch.int32))
    assert cells(A) <= cells(children(coarse, factor=factor))


def test_children_of_a_mask() -> None:
    mask = torch.rand(len(A), 8) < 0.4
    kept = {
        (b, 2 * x + (s & 1), 2 * y + (s >> 1 & 1), 2 * z + (s >> 2))
        for (b, x, y, z), row in zip(A.coords.tolist(), mask.tolist(), strict=True)
        for s in range(8)
        if row[s]
    }
    fine = children(A, mask)
    assert cells(fine) == kept
    assert fine.resolution == (24, 24, 24)
    assert fine.frame.isclose(A.frame.refine(2))
    other = mask[:, [0, 4, 2, 6, 1, 5, 3, 7]]
    assert cells(children(A, other, order="x_slowest")) == kept
    assert len(children(A, torch.zeros_like(mask))) == 0
    assert len(children(A)) == 8 * len(A)
    assert cells(children(full_grid(2), factor=(1, 2, 3))) == cells(full_grid((2, 4, 6)))


def test_child_orders() -> None:
    assert child_offsets((2, 2, 2), "x_fastest")[1].tolist() == [1, 0, 0]
    assert child_offsets((2, 2, 2), "x_slowest")[1].tolist() == [0, 0, 1]
    assert child_offsets((1, 2, 3), "x_fastest").tolist() == [[0, j, k] for k in range(3) for j in range(2)]


def test_empty() -> None:
    empty = random_grid((0, 0), 12)
    for grid in (union(empty, empty), intersection(empty, empty), dilate(empty), parents(empty), children(empty)):
        assert len(grid) == 0
        assert grid.batch_size == 2
    none = random_grid((), 12)
    assert parents(none).batch_size == 0


def test_bad_input() -> None:
    with pytest.raises(RangeError, match="one resolution and batch size"):
        union(A, random_grid((1,), 12))
    shifted = VoxelGrid.from_sorted(A.coords, resolution=12, batch_size=3, frame=Frame((0, 0, 0), (1, 1, 1)))
    with pytest.raises(FrameError):
        intersection(A, shifted)
    with pytest.raises(RangeError, match=r"dilate: kernel_size must be odd.*\(2, 2, 2\)"):
        dilate(A, 2)
    with pytest.raises(RangeError, match="factor"):
        parents(A, 0)
    with pytest.raises(DtypeError, match="mask must be"):
        children(A, torch.ones(len(A), 8))
    with pytest.raises(ShapeError, match="mask must be"):
        children(A, torch.ones(len(A), 27, dtype=torch.bool))
    with pytest.raises(RangeError, match="finer resolution"):
        children(random_grid((3,), 65536))
    with pytest.raises(RangeError, match="order must be"):
        children(A, order="morton")  # pyright: ignore[reportArgumentType]
