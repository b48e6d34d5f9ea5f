"""The convolution to children: equal to convolving for all children and dropping some, with less work."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from voxgen.core import VoxelGrid
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.conv import sparse_conv, sparse_conv_children
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure, channel_to_space
from voxgen.testing.compare import difference
from voxgen.testing.grids import random_grid

BACKENDS = ["numba", "torch", "reference"]


def problem(counts=(40, 0, 9), channels=12, width=5, dtype=torch.float32, keep=0.4):
    grid = random_grid(counts, 9)
    g = torch.Generator().manual_seed(1)
    structure = Structure.of_mask(grid, torch.rand(len(grid), 8, generator=g) < keep)
    feats, weight, bias = (torch.randn(*s, generator=g).to(dtype) for s in ((len(grid), channels), (27, channels, 8 * width), (8 * width,)))
    return feats, weight, bias, neighbor_table(grid), structure


def in_two_steps(feats, weight, bias, table, structure, backend):
    return channel_to_space(sparse_conv(feats, weight, bias, table, backend=backend), structure)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_two_steps(backend, dtype):
    given = problem(dtype=dtype)
    actual, expected = sparse_conv_children(*given, backend=backend), in_two_steps(*given, backend)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    # other engines sum in another order when there are fewer columns; a half type then rounds to the neighbour
    assert difference(actual, expected) <= {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]


@pytest.mark.parametrize("width", [16, 24, 160])  # 24 is filled up with zero columns; the others are read where they lie
def test_gives_the_same_bits_with_numba(width):
    given = problem(channels=40, width=width)
    assert torch.equal(sparse_conv_children(*given, backend="numba"), in_two_steps(*given, "numba"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_two_steps(backend):
    feats, weight, bias, *rest = problem()
    grads = []
    for function in (sparse_conv_children, in_two_steps):
        leaves = [t.clone().requires_grad_() for t in (feats, weight, bias)]
        out = function(*leaves, *rest, backend=backend)
        grads.append(torch.autograd.grad(out.square().sum(), leaves))
    for ours, theirs in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


def test_without_bias_and_with_children_that_all_or_none_exist():
    feats, weight, _, table, _ = problem()
    for keep in (True, False):
        structure = Structure.of_mask(table.in_grid, torch.full((len(table), 8), keep)) if keep else empty(table.in_grid)
        given = feats, weight, None, table, structure
        assert difference(sparse_conv_children(*given), in_two_steps(*given, "auto")) <= 1e-6
        assert len(sparse_conv_children(*given)) == (8 * len(table) if keep else 0)


def empty(grid: VoxelGrid) -> Structure:
    children = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=18, batch_size=grid.batch_size)
    return Structure.between(grid, children)


def test_empty_parents():
    feats, weight, bias, table, structure = problem(counts=(0, 0))
    assert sparse_conv_children(feats, weight, bias, table, structure).shape == (0, 5)


def test_makes_no_tensor_of_all_childrens_channels():
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.is_floating_point() and out.ndim == 2:
                self.seen = max(self.seen, out.numel())
            return out

    given = problem(counts=(400,), channels=8, width=16, keep=0.25)
    structure = given[4]
    with Largest() as mode:
        sparse_conv_children(*given, backend="numba")
    assert mode.seen == 16 * len(structure.children) < 128 * len(structure.parents)


def test_inference_mode_and_autocast():
    given = problem()
    with torch.inference_mode():
        assert difference(sparse_conv_children(*given), in_two_steps(*given, "auto")) <= 1e-6
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = sparse_conv_children(*given)
    assert out.dtype == torch.bfloat16


def test_wrong_input_is_named():
    feats, weight, bias, table, structure = problem()
    with pytest.raises(ShapeError, match=r"sparse_conv_children: the output channels must be a multiple of the 8 children .* got 39"):
        sparse_conv_children(feats, weight[:, :, :39], bias[:39], table, structure)
    other = Structure.of_mask(random_grid((7,), 9))
    with pytest.raises(RangeError, match=r"table must lead to the 7 cells of structure.parents; it leads to 49"):
        sparse_conv_children(feats, weight, bias, table, other)
