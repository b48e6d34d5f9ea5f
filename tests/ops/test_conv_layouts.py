"""Weights of other libraries."""

from __future__ import annotations

import pytest
import torch
from conv_inputs import at
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.ops.conv import sparse_conv
from voxgen.ops.conv.layouts import from_layout, to_layout
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.compare import difference
from voxgen.testing.grids import full_grid


@pytest.mark.parametrize("size", [(3, 3, 3), (1, 1, 1), (3, 1, 5), (2, 2, 2)])
def test_layouts_round_trip(size: tuple[int, int, int]) -> None:
    volume = size[0] * size[1] * size[2]
    weight = torch.randn(volume, 4, 6)
    weight = weight[0] if volume == 1 else weight
    for layout in ("torch", "torch-transposed", "trellis2", "spconv", "spconv-2.1", "spconv-1", "torchsparse"):
        assert torch.equal(from_layout(to_layout(weight, layout, size), layout, size), weight), layout


@pytest.mark.parametrize("size", [(3, 3, 3), (3, 1, 5)])
def test_layouts_give_dense_convolution(size: tuple[int, int, int]) -> None:
    """Each layout read by that library's own index rule, written out, is what the converter says."""
    x, y, z = size
    offsets = [(i, j, k) for i in range(x) for j in range(y) for k in range(z)]
    weight = torch.randn(x * y * z, 2, 3)
    their = {name: to_layout(weight, name, size) for name in ("torch", "trellis2", "spconv-2.1", "spconv-1", "torchsparse")}
    for row, (i, j, k) in enumerate(offsets):
        assert torch.equal(their["torch"][:, :, i, j, k], weight[row].T)
        assert torch.equal(their["trellis2"][:, i, j, k, :], weight[row].T)
        assert torch.equal(their["spconv-2.1"][i, j, k], weight[row].T)
        assert torch.equal(their["spconv-1"][i, j, k], weight[row])
        assert torch.equal(their["torchsparse"][i + x * (j + y * k)], weight[row])  # x fastest
    grid = full_grid((5, 4, 6))
    feats = torch.randn(len(grid), 2)
    dense = F.conv3d(SparseTensor(grid, feats).dense(), their["torch"], padding=tuple(s // 2 for s in size))
    out = sparse_conv(feats, from_layout(their["torchsparse"], "torchsparse", size), None, neighbor_table(grid, kernel_size=size))
    assert difference(out, at(dense, grid)) < 1e-6


def test_layouts_with_exceptions() -> None:
    weight = torch.randn(4, 6)
    theirs = to_layout(weight, "spconv", 1)
    assert theirs.shape == (6, 1, 1, 1, 4)
    assert torch.equal(theirs.flatten(), weight.flatten())
    even = torch.randn(8, 4, 6)
    assert torch.equal(to_layout(even, "torchsparse", 2), even)  # of even volume torchsparse has x slowest
