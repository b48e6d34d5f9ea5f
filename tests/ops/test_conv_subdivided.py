"""Convolution of subdivided features: the same as its two steps, with gradients, on every engine, for complete and other structures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.conv import sparse_conv, sparse_conv_subdivided
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure, subdivide
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import full_grid, random_grid

GRIDS = {"ragged": ((60, 0, 30), 8), "one cell": ((1,), 1), "none": ((0, 0), 4), "no samples": ((), 4)}


def two_steps(feats: Tensor, weight: Tensor, bias: Tensor | None, structure: Structure) -> Tensor:
    return sparse_conv(subdivide(feats, structure), weight, bias, neighbor_table(structure.children), backend="reference")


@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", GRIDS)
def test_two_steps(name: str, complete: bool, backend: str) -> None:
    counts, resolution = GRIDS[name]
    grid = random_grid(counts, resolution)
    torch.manual_seed(0)
    mask = torch.rand(len(grid), 8) > 0.2
    mask[:1, 0], mask[:1, 1] = True, False
    structure = Structure.of_mask(grid, None if complete else mask)
    feats, weight, bias = tensors = [t.requires_grad_() for t in (torch.randn(len(grid), 5), torch.randn(27, 5, 3), torch.randn(3))]
    expected = two_steps(feats, weight, bias, structure)
    found = sparse_conv_subdivided(feats, weight, bias, structure, backend=backend)
    assert_same(found, expected, "result")
    upstream = torch.randn_like(expected)
    for one, other in zip(torch.autograd.grad(found, tensors, upstream), torch.autograd.grad(expected, tensors, upstream), strict=True):
        assert_same(one, other, "gradient")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    """Half precision: weights that are sums are rounded as the weights themselves are."""
    structure = Structure.of_mask(full_grid(4))
    feats, weight = torch.randn(64, 6, dtype=torch.float64).to(dtype), torch.randn(27, 6, 4, dtype=torch.float64).to(dtype)
    found = sparse_conv_subdivided(feats, weight, None, structure)
    assert found.dtype == dtype
    assert_same(found.double(), two_steps(feats.double(), weight.double(), None, structure), "result", tolerance)


def test_bad_input() -> None:
    grid = random_grid((5,), 4)
    structure = Structure.of_mask(grid)
    with pytest.raises(ShapeError, match="feats must be"):
        sparse_conv_subdivided(torch.zeros(4, 2), torch.zeros(27, 2, 3), None, structure)
    with pytest.raises(ShapeError, match="weight must be"):
        sparse_conv_subdivided(torch.zeros(5, 2), torch.zeros(8, 2, 3), None, structure)
    with pytest.raises(RangeError, match="factor 2"):
        sparse_conv_subdivided(torch.zeros(5, 2), torch.zeros(27, 2, 3), None, Structure.of_mask(grid, factor=3))
