"""A field that closes where its cells end: equal to the dense grid's, and closed."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import VoxelGrid
from voxgen.core.errors import RangeError
from voxgen.ops.cube_corners import cube_corners
from voxgen.representations import SparseFlex
from voxgen.testing.grids import random_grid

SIDE = 6


def noisy(grid: VoxelGrid) -> SparseFlex:
    features = torch.randn(len(grid), 53, generator=torch.Generator().manual_seed(3))
    return SparseFlex.from_features(grid, features, compat="trellis")


def dense(flex: SparseFlex) -> SparseFlex:
    """Every cell of the grid; what no cell says is 1 outside, unmoved, with the weights of raw zeros."""
    every = torch.cartesian_prod(torch.arange(flex.grid.batch_size), *[torch.arange(SIDE)] * 3).int()
    grid, _ = VoxelGrid.build(every, resolution=SIDE, batch_size=flex.grid.batch_size)
    corners, own = cube_corners(grid), {tuple(c): i for i, c in enumerate(flex.corners.coords.tolist())}
    rows = torch.tensor([own.get(tuple(c), -1) for c in corners.coords.tolist()])
    cells = flex.grid.rows_of(grid.coords)
    assert flex.offsets is not None
    assert flex.alpha is not None
    assert flex.beta is not None
    assert flex.gamma is not None
    return SparseFlex(
        grid,
        torch.where(rows >= 0, flex.sdf[rows], 1.0),
        torch.where((rows >= 0)[:, None], flex.offsets[rows], 0.0),
        torch.where((cells >= 0)[:, None], flex.alpha[cells], 1.0),
        torch.where((cells >= 0)[:, None], flex.beta[cells], 1.0),
        torch.where(cells >= 0, flex.gamma[cells], 0.5),
    )


@pytest.mark.parametrize("counts", [(1,), (20, 0, 35), (150,)])
def test_is_what_the_dense_grid_has(counts: tuple[int, ...]) -> None:
    flex = noisy(random_grid(counts, SIDE))
    found, wanted = flex.enclosed().to_mesh(), dense(flex).to_mesh()
    assert torch.equal(found.faces, wanted.faces)
    torch.testing.assert_close(found.vertices, wanted.vertices, rtol=0, atol=1e-6)
    assert found.num_faces > 0


def test_closes_and_adds_only_what_matters() -> None:
    middle = torch.tensor([[0, 2, 2, 2], [0, 2, 2, 3], [0, 3, 2, 2]], dtype=torch.int32)
    flex = noisy(VoxelGrid.build(middle, resolution=SIDE)[0])
    flex = flex.replace(sdf=-torch.ones_like(flex.sdf))
    mesh = flex.enclosed().to_mesh()
    edges = torch.cat([mesh.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).sort(1).values
    assert bool((edges.unique(dim=0, return_counts=True)[1] == 2).all()), "closed"
    outside = flex.replace(sdf=torch.ones_like(flex.sdf))
    assert len(outside.enclosed().grid) == 3
    empty = noisy(VoxelGrid.build(middle[:0], resolution=SIDE, batch_size=2)[0])
    assert len(empty.enclosed().grid) == 0


def test_gradients_reach_the_old_corners() -> None:
    flex = noisy(random_grid((20,), SIDE))
    sdf = flex.sdf.clone().requires_grad_()
    flex.replace(sdf=sdf).enclosed().to_mesh().vertices.sum().backward()
    assert sdf.grad is not None
    assert bool(sdf.grad.abs().sum() > 0)


@pytest.mark.parametrize("outside", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_input(outside: float) -> None:
    with pytest.raises(RangeError, match="outside"):
        noisy(random_grid((3,), SIDE)).enclosed(outside)
