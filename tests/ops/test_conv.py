"""Sparse convolution against dense convolution, its own algebra, and the original's values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conv_inputs import at, conv, operands
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import BackendUnavailable, DeviceError, DtypeError, ShapeError
from voxgen.ops._registry import use_backend
from voxgen.ops.conv import sparse_conv
from voxgen.ops.conv.layouts import from_layout, to_layout
from voxgen.ops.grid_sets import children
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.compare import difference
from voxgen.testing.grids import full_grid, random_coords, random_grid

ENGINES = ["numba", "torch", "reference"]
GOLDEN = Path(__file__).parents[1] / "golden"


def accuracy(dtype: torch.dtype) -> float:
    """Rounding of sums of a few hundred products of unit size."""
    return 1e-12 if dtype == torch.float64 else 2e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("kernel", "dilation"),
    [((3, 3, 3), (1, 1, 1)), ((1, 1, 1), (1, 1, 1)), ((5, 5, 5), (1, 1, 1)), ((3, 1, 5), (1, 2, 3)), ((3, 3, 3), (2, 2, 2))],
)
@pytest.mark.parametrize("full", [True, False])
def test_submanifold_is_dense_convolution_at_the_cells(engine: str, kernel: tuple[int, ...], dilation: tuple[int, ...], full: bool) -> None:
    grid = full_grid((6, 5, 7), 2) if full else random_grid((60, 0, 45), (9, 8, 7))
    dtype = torch.float32 if engine == "numba" else torch.float64
    table = neighbor_table(grid, kernel_size=kernel, dilation=dilation)  # pyright: ignore[reportArgumentType]
    feats, weight, bias = operands(table, 5, 7, dtype)
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    dense = F.conv3d(SparseTensor(grid, feats).dense(), to_layout(weight, "torch", kernel), bias, dilation=dilation, padding=padding)  # pyright: ignore
    assert difference(sparse_conv(feats, weight, bias, table, backend=engine), at(dense, grid)) < accuracy(dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 2, 0), (5, 3, 2)])
@pytest.mark.parametrize("sites", ["floor", "window"])
def test_strided_is_dense_convolution_at_the_outputs(engine: str, kernel: int, stride: int, padding: int, sites: Any) -> None:
    grid = random_grid((50, 0, 40), (9, 8, 7))
    dtype = torch.float32 if engine == "numba" else torch.float64
    table = neighbor_table(grid, kernel_size=kernel, stride=stride, padding=padding, sites=sites)
    feats, weight, bias = operands(table, 4, 6, dtype)
    # the floor rule may have an output whose window sticks out of the padded grid: pad further, where there are only zeros
    volume = F.pad(SparseTensor(grid, feats).dense(), (0, kernel) * 3)
    dense = F.conv3d(volume, to_layout(weight, "torch", kernel), bias, stride=stride, padding=padding)
    assert difference(sparse_conv(feats, weight, bias, table, backend=engine), at(dense, table.out_grid)) < accuracy(dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_generative_is_dense_transposed_convolution(engine: str, kernel: int, stride: int) -> None:
    grid = random_grid((20, 0, 12), 6)
    dtype = torch.float32 if engine == "numba" else torch.float64
    table = neighbor_table(grid, kernel_size=kernel, stride=stride, transposed=True)
    feats, weight, bias = operands(table, 4, 6, dtype)
    dense = F.conv_transpose3d(
        SparseTensor(grid, feats).dense(),
        to_layout(weight, "torch-transposed", kernel),
        bias,
        stride=stride,
        padding=kernel // 2 if kernel % 2 else 0,
        output_padding=stride - 1 if kernel % 2 else 0,
    )
    assert dense.shape[2:] == torch.Size(table.out_grid.resolution)
    assert difference(sparse_conv(feats, weight, bias, table, backend=engine), at(dense, table.out_grid)) < accuracy(dtype)
    kept = children(grid, torch.rand(len(grid), 8) < 0.5)
    onto = neighbor_table(grid, kernel_size=kernel, stride=stride, transposed=True, out_grid=kept)
    assert difference(sparse_conv(feats, weight, bias, onto, backend=engine), at(dense, kept)) < accuracy(dtype)


@pytest.mark.parametrize("engine", ["torch", "reference"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 2, "stride": 2}, {"stride": 2}, {"padding": 0}])
def test_transposed_is_the_adjoint(engine: str, options: dict[str, Any]) -> None:
    table = neighbor_table(random_grid((40, 0, 30), 8), **options)
    x, weight, _ = operands(table, 5, 4, torch.float64)
    y = torch.randn(len(table), 4, dtype=torch.float64)
    forward = sparse_conv(x, weight, None, table, backend=engine)
    back = sparse_conv(y, weight.transpose(1, 2), None, table.transposed(), backend=engine)
    assert (forward * y).sum().item() == pytest.approx((x * back).sum().item(), rel=1e-12)


@pytest.mark.parametrize("engine", ["torch", "reference"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2, "transposed": True}])
def test_gradcheck(engine: str, options: dict[str, Any]) -> None:
    table = neighbor_table(random_grid((5, 0, 4), 3), **options)
    tensors = [t.requires_grad_() for t in operands(table, 3, 2, torch.float64)]
    assert torch.autograd.gradcheck(lambda x, w, b: sparse_conv(x, w, b, table, backend=engine), tensors)


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_wide_layers_and_long_tables(engine: str) -> None:
    """Several chunks, panels deeper than one, more columns than one group: what small cases do not reach."""
    table = neighbor_table(random_grid((2300, 0, 300), 40, seed=2))
    feats, weight, bias = (t.requires_grad_() for t in operands(table, 300, 140))
    upstream = torch.randn(len(table), 140)
    expected = sparse_conv(feats, weight, bias, table, backend="reference")
    actual = sparse_conv(feats, weight, bias, table, backend=engine)
    assert difference(actual, expected) < 2e-6
    wanted = torch.autograd.grad(expected, [feats, weight, bias], upstream)
    for name, a, e in zip(("feats", "weight", "bias"), torch.autograd.grad(actual, [feats, weight, bias], upstream), wanted, strict=True):
        assert difference(a, e) < 5e-6, name  # sums of up to 3200 products


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    seed=st.integers(0, 1000),
    engine=st.sampled_from(ENGINES),
    stride=st.sampled_from([1, 2]),
)
def test_order_and_batch_do_not_matter(counts: list[int], channels: tuple[int, int], seed: int, engine: str, stride: int) -> None:
    torch.manual_seed(seed)
    coords = random_coords(counts, 7, seed)
    feats = torch.randn(len(coords), channels[0])
    x = SparseTensor.build(coords, feats, resolution=7, batch_size=len(counts))
    table = neighbor_table(x.grid, stride=stride)
    _, weight, bias = operands(table, *channels)
    out = sparse_conv(x.feats, weight, bias, table, backend=engine)

    shuffle = torch.randperm(len(coords))
    other = SparseTensor.build(coords[shuffle], feats[shuffle], resolution=7, batch_size=len(counts))
    again = neighbor_table(other.grid, stride=stride)
    assert torch.equal(sparse_conv(other.feats, weight, bias, again, backend=engine), out)

    alone = [neighbor_table(part.grid, stride=stride) for part in x.unbind()]
    parts = [sparse_conv(part.feats, weight, bias, t, backend=engine) for part, t in zip(x.unbind(), alone, strict=True)]
    if engine == "numba":  # bit for bit: no sum depends on what else is in the batch
        assert torch.equal(torch.cat(parts), out)
    else:  # torch's matrix product may sum in another order for another number of rows
        assert difference(torch.cat(parts), out) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_simple_kernels(engine: str) -> None:
    table = neighbor_table(random_grid((80, 0, 30), 9))
    feats = torch.randn(len(table), 5)
    identity = torch.zeros(27, 5, 5)
    identity[13] = torch.eye(5)
    assert torch.equal(sparse_conv(feats, identity, None, table, backend=engine), feats)
    count = sparse_conv(torch.ones(len(table), 1), torch.ones(27, 1, 1), None, table, backend=engine)
    assert torch.equal(count[:, 0], (table.table >= 0).sum(1).float())


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_stays_in_its_windows(engine: str) -> None:
    table = neighbor_table(random_grid((90, 0, 70), 9))
    feats, weight, bias = operands(table, 40, 36)
    feats[17] = float("nan")
    out = sparse_conv(feats, weight, bias, table, backend=engine)
    assert torch.equal(out.isnan().any(1), (table.table == 17).any(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_half_precision_rounds_once(dtype: torch.dtype, engine: str) -> None:
    table = neighbor_table(random_grid((200, 0, 100), 16))
    tensors = [t.to(dtype) for t in operands(table, 67, 40)]
    exact = conv([t.double() for t in tensors], table)
    out = conv(tensors, table, engine)
    assert out.dtype == dtype
    unit = torch.finfo(dtype).eps * exact.abs() / 2  # half a unit in the last place, and float32 noise beside it
    assert bool(((out.double() - exact).abs() <= unit * 1.01 + 1e-6).all())


def test_one_by_one_takes_a_matrix() -> None:
    table = neighbor_table(random_grid((30,), 8), kernel_size=1)
    feats, weight, bias = operands(table, 6, 5)
    for engine in ENGINES:
        out = sparse_conv(feats, weight[0], bias, table, backend=engine)
        assert difference(out, feats @ weight[0] + bias) < 1e-6


def golden_conv(name: str, dilation: int, backend: str) -> tuple[Tensor, Tensor]:
    """Ours and the original's output, in the original's order of rows."""
    facts = json.loads((GOLDEN / "trellis2_blocks.json").read_text())
    arrays = np.load(GOLDEN / "trellis2_blocks.npz")
    tensors = {n: s for n, s in facts["networks"][name]["tensors"]}
    state = recipe.state_dict(list(tensors.items()), facts["networks"][name]["seed"])
    feats = torch.from_numpy(recipe.normal("x", (190, 16), facts["seed"]))
    coords = torch.from_numpy(arrays["coords"])
    grid, order = VoxelGrid.build(coords, resolution=int(coords[:, 1:].max()) + 1)
    weight = from_layout(torch.from_numpy(state["weight"]), "trellis2")
    bias = torch.from_numpy(state["bias"]) if "bias" in state else None
    out = sparse_conv(feats[order], weight, bias, neighbor_table(grid, dilation=dilation), backend=backend)
    return out, torch.from_numpy(arrays[name])[order]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "dilation"), [("conv", 1), ("conv_dilated", 2)])
def test_original_values(name: str, dilation: int, engine: str) -> None:
    out, expected = golden_conv(name, dilation, engine)
    assert difference(out, expected) < 1e-5


def test_original_values_of_the_sheet() -> None:
    coords = torch.tensor([[0, *map(int, c)] for c in ("000", "100", "111", "211", "332", "322")], dtype=torch.int32)
    n, c = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    x = SparseTensor.build(coords, torch.sin(0.3 * n + 0.11 * c), resolution=4)

    def filled(number: int, *shape: int) -> Tensor:
        place = torch.arange(int(np.prod(shape)), dtype=torch.float64)
        return 0.2 * torch.sin(0.7 * place + 1.3 * number).reshape(shape).float()

    weight = from_layout(filled(1, 8, 3, 3, 3, 8), "trellis2")
    out = sparse_conv(x.feats, weight, filled(0, 8), neighbor_table(x.grid))
    assert out.sum().item() == pytest.approx(-0.148258, abs=2e-5)
    assert out.abs().sum().item() == pytest.approx(8.478831, abs=2e-5)
    assert out[0, :4].tolist() == pytest.approx([0.204006, 0.244212, 0.205287, 0.072351], abs=2e-6)


def test_bad_input() -> None:
    table = neighbor_table(random_grid((30,), 8))
    feats, weight, bias = operands(table, 4, 6)
    with pytest.raises(ShapeError, match=r"feats must be \(30, ci\).*got \(29, 4\) float32"):
        sparse_conv(feats[1:], weight, bias, table)
    with pytest.raises(ShapeError, match=r"weight must be \(27, 4, co\).*got \(27, 5, 6\).*layouts"):
        sparse_conv(feats, torch.randn(27, 5, 6), bias, table)
    with pytest.raises(ShapeError, match=r"weight must be \(27, 4, co\).*got \(6, 3, 3, 3, 4\)"):
        sparse_conv(feats, torch.randn(6, 3, 3, 3, 4), bias, table)
    with pytest.raises(ShapeError, match=r"bias must be \(6,\)"):
        sparse_conv(feats, weight, bias[:5], table)
    with pytest.raises(DtypeError, match=r"one dtype; got torch.float32, torch.float16"):
        sparse_conv(feats, weight.half(), bias, table)
    with pytest.raises(DtypeError, match="feats must be"):
        sparse_conv(feats.long(), weight, bias, table)
    with pytest.raises(DeviceError, match="weight on meta"):
        sparse_conv(feats, weight.to("meta"), bias, table)
    with pytest.raises(ShapeError, match="at least one input and one output channel"):
        sparse_conv(feats[:, :0], weight[:, :0], bias, table)
    with pytest.raises(BackendUnavailable, match="numba: takes float32"):
        sparse_conv(feats.double(), weight.double(), None, table, backend="numba")
    with use_backend(conv="reference"):
        assert sparse_conv(feats, weight, bias, table).grad_fn is None
    with pytest.raises(ShapeError, match=r"kernel size \(5, 5, 5\)"):
        from_layout(torch.randn(6, 3, 3, 3, 4), "trellis2", 5)
    with pytest.raises(ShapeError, match="kernel_size if the kernel is no cube"):
        from_layout(torch.randn(15, 3, 4), "torchsparse")
    with pytest.raises(ShapeError, match="kernel size is"):
        to_layout(weight, "torch", 5)
