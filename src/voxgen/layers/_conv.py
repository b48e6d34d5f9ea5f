"""SparseConv3d: a convolution on sparse cells with one layout of parameters, whatever runs it."""

from __future__ import annotations

import math

import torch
from torch import nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int
from voxgen.ops.conv import sparse_conv
from voxgen.ops.neighbors import Sites, neighbor_table
from voxgen.ops.neighbors._key import make_key

from ._checks import require_input


class SparseConv3d(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Int3 = 3,
        *,
        stride: int | Int3 = 1,
        dilation: int | Int3 = 1,
        padding: int | Int3 | None = None,
        bias: bool = True,
        sites: Sites = "floor",
        transposed: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        where = "SparseConv3d"
        self.in_channels = require_int(where, "in_channels", in_channels, 1)
        self.out_channels = require_int(where, "out_channels", out_channels, 1)
        self.key = make_key(where, kernel_size, dilation, stride, padding, sites, transposed)
        self.backend = backend
        shape = (self.in_channels, self.out_channels)
        self.weight = nn.Parameter(torch.zeros(shape if self.key.volume == 1 else (self.key.volume, *shape)))
        self.bias = nn.Parameter(torch.zeros(self.out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform weights (a = √5) and uniform biases: both in ±1/√(K·ci), as dense convolutions of torch."""
        bound = 1 / math.sqrt(self.key.volume * self.in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: SparseTensor, out_grid: VoxelGrid | None = None) -> SparseTensor:
        require_input("SparseConv3d", x, self.in_channels, self.weight)
        key = self.key
        table = neighbor_table(
            x.grid,
            kernel_size=key.kernel_size,
            dilation=key.dilation,
            stride=key.stride,
            padding=key.padding,
            sites=key.sites,
            transposed=key.transposed,
            out_grid=out_grid,
        )
        return SparseTensor(table.out_grid, sparse_conv(x.feats, self.weight, self.bias, table, backend=self.backend))

    def extra_repr(self) -> str:
        key = self.key
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={key.kernel_size}"]
        parts += [f"{name}={value}" for name, value in (("stride", key.stride), ("dilation", key.dilation)) if value != (1, 1, 1)]
        parts += ["transposed=True"] if key.transposed else []
        parts += ["bias=False"] if self.bias is None else []
        return ", ".join(parts)
