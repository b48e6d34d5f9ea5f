"""sample_trilinear and sample_nearest: the original's numbers, properties of interpolation, gradients, bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.ops.sample import OP, sample_nearest, sample_trilinear
from voxgen.testing.cases.lookup import random_grid
from voxgen.testing.cases.sample import queries

GOLDEN = Path(__file__).parents[1] / "golden"
ENGINES = list(OP.backends)
engines = pytest.mark.parametrize("engine", ENGINES)


def grid_of(cells: list[list[int]], resolution: int = 4) -> VoxelGrid:
    coords = torch.tensor([[0, *cell] for cell in cells], dtype=torch.int32)
    return VoxelGrid.build(coords, resolution=resolution, batch_size=1)[0]


@engines
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
def test_original(engine: str, mode: str) -> None:
    golden = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "ovoxel_grid_sample.npz").items()}
    grid, order = VoxelGrid.build(golden["coords"], resolution=(7, 6, 8), batch_size=2)
    feats = golden["feats"][order].requires_grad_()
    batch, length = golden["query"].shape[:2]
    points = golden["query"].reshape(-1, 3).requires_grad_()
    sampler = sample_trilinear if mode == "trilinear" else sample_nearest
    values = sampler(feats, grid, points, torch.arange(batch).repeat_interleave(length), compat="trellis2", backend=engine)
    torch.testing.assert_close(values.reshape(batch, length, -1), golden[mode], atol=1e-5, rtol=0)
    values.backward(golden["upstream"].reshape(values.shape))
    assert feats.grad is not None
    torch.testing.assert_close(feats.grad, golden[f"{mode}_grad"][order], atol=1e-5, rtol=0)
    assert points.grad is None


@engines
def test_written_out_numbers(engine: str) -> None:
    grid = grid_of([[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    points = torch.tensor([[1, 0.5, 0.5], [1, 1, 0.5], [1.25, 0.75, 0.9], [3, 3, 3]])
    values = sample_trilinear(torch.tensor([[1.0], [2.0], [4.0]]), grid, points, backend=engine)
    # Σw is 1, 0.75, 0.5625 and 0
    assert values[:, 0].tolist() == pytest.approx([1.5, 7 / 3, 2.2, 0], abs=1e-6)


@engines
def test_at_centres_the_features_themselves(engine: str) -> None:
    grid = random_grid(9, 3, 250)
    feats = torch.randn(len(grid), 5)
    centres = grid.cells + 0.5
    assert torch.equal(sample_trilinear(feats, grid, centres, grid.batch, backend=engine), feats)
    inside = grid.cells + torch.rand(len(grid), 3)
    assert torch.equal(sample_nearest(feats, grid, inside, grid.batch, backend=engine), feats)
    assert torch.equal(sample_nearest(feats, grid, grid.cells.float(), grid.batch, backend=engine), feats)


@engines
def test_linear_functions_are_met_inside_and_constants_everywhere(engine: str) -> None:
    full = VoxelGrid.build(torch.cartesian_prod(*[torch.arange(n) for n in (1, 5, 6, 7)]).int(), resolution=(5, 6, 7))[0]
    linear = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-1.5, 0.25]], dtype=torch.float64)
    inside = 0.5 + torch.rand(200, 3, dtype=torch.float64) * (torch.tensor(full.resolution) - 1)
    values = sample_trilinear((full.cells + 0.5).double() @ linear, full, inside, backend=engine)
    torch.testing.assert_close(values, inside @ linear, rtol=1e-12, atol=1e-12)
    sparse = random_grid(9, 3, 100)
    points, batch = queries(sparse, 1000, torch.float64)
    ones = sample_trilinear(torch.ones(len(sparse), 1, dtype=torch.float64), sparse, points, batch, backend=engine)
    assert bool(((ones - 1).abs() < 1e-12).logical_or(ones == 0).all())
    assert 0.2 < float(ones.mean()) < 0.98  # both kinds occur


@engines
def test_samples_do_not_see_each_other(engine: str) -> None:
    grid = random_grid(9, 3, 250)
    feats = torch.randn(len(grid), 4)
    points, batch = queries(grid, 400, torch.float32)
    together = sample_trilinear(feats, grid, points, batch, backend=engine)
    for s in range(3):
        own, rows = batch == s, slice(*grid.offsets[s : s + 2].tolist())
        alone = sample_trilinear(feats[rows], grid.sample(s), points[own], backend=engine)
        assert torch.equal(alone, together[own])


@engines
def test_nearest_rounds_down_and_the_original_towards_zero(engine: str) -> None:
    grid, feats = grid_of([[0, 0, 0], [1, 0, 0]]), torch.tensor([[3.0], [5.0]])
    points = torch.tensor([[-0.5, 0.5, 0.5], [0.5, -0.999, 0.5], [-1.0, 0, 0], [1.999, 0.2, 0.9], [2.0, 0, 0]])
    assert sample_nearest(feats, grid, points, backend=engine)[:, 0].tolist() == [0, 0, 0, 5, 0]
    assert sample_nearest(feats, grid, points, compat="trellis2", backend=engine)[:, 0].tolist() == [3, 3, 0, 5, 0]


@engines
def test_trilinear_reaches_below_the_grid(engine: str) -> None:
    # q < 0.5 has its lower cell at -1, which does not exist; truncation would take cells 0 and 1 instead
    grid, feats = grid_of([[0, 0, 0], [1, 0, 0]]), torch.tensor([[3.0], [5.0]])
    points = torch.tensor([[-0.4, 0.5, 0.5], [0.4, 0.5, 0.5], [-0.51, 0.5, 0.5], [2.4, 0.5, 0.5], [2.51, 0.5, 0.5]])
    assert sample_trilinear(feats, grid, points, backend=engine)[:, 0].tolist() == pytest.approx([3, 3, 0, 5, 0])


@engines
def test_far_points_read_nothing(engine: str) -> None:
    grid = grid_of([[0, 0, 0], [3, 3, 3]])
    points = torch.tensor([[1e30, 0, 0], [-1e30, 1, 1], [4294967296.0, 0, 0], [65536.5, 0.5, 0.5], [3.5, 3.5, -2147483648.0]])
    for dtype in (torch.float32, torch.float64):
        assert not bool(sample_trilinear(torch.ones(2, 1), grid, points.to(dtype), backend=engine).any())
        assert not bool(sample_nearest(torch.ones(2, 1), grid, points.to(dtype), backend=engine).any())


@engines
def test_gradients_by_differences(engine: str) -> None:
    grid = random_grid(5, 1, 60)
    feats = torch.randn(len(grid), 3, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(40, 3, dtype=torch.float64) * 6 - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, p: sample_trilinear(f, grid, p, backend=engine), (feats, points), eps=1e-7, atol=1e-5, fast_mode=True
    )
    assert torch.autograd.gradcheck(lambda f: sample_nearest(f, grid, points.detach(), backend=engine), (feats,), fast_mode=True)


@engines
def test_gradient_to_points_is_zero_where_nothing_changes(engine: str) -> None:
    # one cell only: its value all over its reach. On the border of the reach Σw is 0, and so are value and gradient.
    grid, feats = grid_of([[1, 1, 1]]), torch.tensor([[0.3, 7.0]])
    points = torch.tensor([[1.2, 1.4, 1.9], [0.5001, 0.5001, 0.5001], [0.5, 1.5, 1.5], [1.5, 2.5, 1.5], [9, 9, 9]], requires_grad=True)
    values = sample_trilinear(feats, grid, points, backend=engine)
    assert values[:, 1].tolist() == pytest.approx([7, 7, 0, 0, 0])
    values.backward(torch.tensor([0.7, 0.1]).expand_as(values))
    assert points.grad is not None
    assert not bool(points.grad.any())


@engines
def test_half_types_sum_in_float32(engine: str) -> None:
    grid = random_grid(6, 1, 2000)
    points, _ = queries(grid, 200, torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        feats = (torch.randn(len(grid), 3) + 100).to(dtype)
        values = sample_trilinear(feats, grid, points, backend=engine)
        exact = sample_trilinear(feats.float(), grid, points, backend=engine)
        assert values.dtype == dtype
        assert torch.equal(values, exact.to(dtype))


@engines
def test_input_layouts(engine: str) -> None:
    grid = random_grid(6, 1, 100)
    wide, points = torch.randn(len(grid), 8), torch.rand(50, 3) * 6
    expected = sample_trilinear(wide[:, ::2].contiguous(), grid, points, backend=engine)
    assert torch.equal(sample_trilinear(wide[:, ::2], grid, points, backend=engine), expected)
    turned = torch.stack(points.unbind(1)).T
    assert torch.equal(sample_trilinear(wide[:, ::2], grid, turned, torch.zeros(50, dtype=torch.int32), backend=engine), expected)
    assert sample_trilinear(wide[:, :0], grid, points, backend=engine).shape == (50, 0)
    assert sample_trilinear(wide, grid, points[:0], backend=engine).shape == (0, 8)
    nothing = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=0)
    assert sample_nearest(wide[:0], nothing, points[:0], backend=engine).shape == (0, 8)
    alone = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=1)
    assert not bool(sample_trilinear(wide[:0], alone, points, backend=engine).any())


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_many_points_on_few_cells_add_up_in_the_same_order(engine: str) -> None:
    # float32 sums of 20,000 terms differ in their last digits if the order of two terms does
    grid, points = grid_of([[1, 1, 1], [2, 1, 1]]), torch.rand(20_000, 3) * 4
    feats = torch.randn(2, 3, requires_grad=True)
    upstream = torch.randn(20_000, 3)

    def gradient() -> Tensor:
        return torch.autograd.grad(sample_trilinear(feats, grid, points, backend=engine), feats, upstream)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(3))


def test_bad_input() -> None:
    grid, feats, points = grid_of([[0, 0, 0]]), torch.zeros(1, 2), torch.zeros(4, 3)
    two = random_grid(4, 2, 5)
    with pytest.raises(ShapeError, match=r"sample_trilinear: points must be \(p, 3\).*got \(2, 4, 3\).*Flatten them"):
        sample_trilinear(feats, grid, torch.zeros(2, 4, 3))
    with pytest.raises(DtypeError, match="points must be"):
        sample_trilinear(feats, grid, points.long())
    with pytest.raises(ShapeError, match="feats must have one row for each of the grid's 1 cells"):
        sample_nearest(torch.zeros(3, 2), grid, points)
    with pytest.raises(RangeError, match="batch must say which of the 2 samples"):
        sample_trilinear(torch.zeros(len(two), 2), two, points)
    with pytest.raises(RangeError, match=r"batch must lie in \[0, 1\)"):
        sample_trilinear(feats, grid, points, torch.tensor([0, 1, 0, 0]))
    with pytest.raises(ShapeError, match=r"batch must be \(4,\)"):
        sample_trilinear(feats, grid, points, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(RangeError, match="points must be finite"):
        sample_trilinear(feats, grid, points / 0)
    with pytest.raises(RangeError, match="compat must be one of 'trellis2'"):
        sample_nearest(feats, grid, points, compat="trellis")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BackendUnavailable, match="numba: ready"):
        sample_nearest(feats, grid, points, backend="cuda")
