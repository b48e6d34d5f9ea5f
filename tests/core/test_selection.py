"""Selections of cells: they combine, and pick rows of whatever lies on the grid."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import Selection, SparseTensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.testing.grids import fresh, random_grid

GRID = random_grid([30, 0, 20], 8)


def _random(seed: int) -> Selection:
    return Selection(GRID, torch.rand(50, generator=torch.Generator().manual_seed(seed)) < 0.5)


def test_selections_combine_by_cell() -> None:
    one, other = _random(0), Selection(fresh(GRID), _random(1).mask)
    assert torch.equal((one & other).mask, one.mask & other.mask)
    assert torch.equal((one | other).mask, one.mask | other.mask)
    assert torch.equal((~one).mask, ~one.mask)
    assert Selection.all(GRID).count == 50
    assert (one & ~one).share == 0


def test_counts_are_those_of_the_samples() -> None:
    one = _random(0)
    assert one.counts.tolist() == [int(one.mask[:30].sum()), 0, int(one.mask[30:].sum())]
    assert one.count == int(one.counts.sum()) == len(one.rows)


def test_apply_picks_rows_on_a_new_grid() -> None:
    one = _random(0)
    x = SparseTensor(GRID, torch.randn(50, 3, requires_grad=True))
    y = one.apply(x)
    assert torch.equal(y.coords, GRID.coords[one.mask])
    assert y.grid.batch_size == 3
    assert torch.equal(y.feats, x.feats[one.mask])
    assert torch.equal(one.apply(x.feats[:, 0]), x.feats[one.mask, 0])
    (gradient,) = torch.autograd.grad(y.feats.sum(), x.feats)
    assert torch.equal(gradient[:, 0], one.mask.float())


def test_what_does_not_fit_raises() -> None:
    one, other = _random(0), random_grid([50], 8)
    with pytest.raises(ShapeError, match="one row for each of the 50"):
        one.apply(torch.zeros(49, 2))
    with pytest.raises(DtypeError, match=r"got list"):
        one.apply([1, 2])  # pyright: ignore
    with pytest.raises(RangeError, match="same cells"):
        one.apply(other)
    with pytest.raises(RangeError, match="same cells"):
        _ = one & Selection.all(other)
    with pytest.raises(ShapeError, match="mask must be"):
        Selection(GRID, torch.ones(49, dtype=torch.bool))
    with pytest.raises(DtypeError, match="mask must be"):
        Selection(GRID, torch.ones(50))


def test_a_selection_shows_how_much_it_is() -> None:
    assert repr(_random(0)).startswith(f"Selection({_random(0).count} of VoxelGrid(50 cells")
