"""SparseConv3d: a convolution on sparse cells with one layout of parameters, whatever runs it."""

from __future__ import annotations

import math

import torch
from torch import nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.errors import RangeError
from voxgen.ops.conv import sparse_conv, sparse_conv_children
from voxgen.ops.neighbors import Sites, neighbor_table
from voxgen.ops.neighbors._key import make_key
from voxgen.ops.resample import Structure

from ._checks import require_channels, require_input


class SparseConv3d(nn.Module):
    """Convolution of the cells that exist: submanifold, strided, transposed or generative.

    Cross-correlation, as `torch.nn.Conv3d`: out[o] = bias + Σₖ x[stride·o − padding + dilation·k] · weight[k]. Cells that
    do not exist contribute nothing.

    Args:
        in_channels, out_channels: ci, co.
        kernel_size: cells along x, y, z, one number or three. Odd, or equal to the stride along its axis.
        stride: 1: the outputs are the inputs (submanifold). More: a coarser grid, see `sites`.
        dilation: distance of two offsets in cells.
        padding: where the first window begins; None puts the middle of an odd window on `stride·o`.
        bias: False leaves it out.
        sites: outputs of a strided convolution: "floor": the parents of inputs; "window": wherever a window touches an
            input (spconv, dense convolutions).
        transposed: spread each input over `kernel_size` cells of a grid `stride` times as fine. Its outputs are
            `forward`'s `out_grid`, or without one all cells that are reached (generative).
        backend: see docs/backends.md.
    Parameters:
        weight: (K, ci, co), K = kx·ky·kz offsets, x slowest, z fastest; (ci, co) where K is 1. The same for every backend;
            `voxgen.ops.conv.layouts` converts from and to those of dense convolutions and other libraries.
        bias: (co,).
        Both uniform in ±1/√(K·ci) at first (Kaiming-uniform with a = √5), as in torch.
    Raises:
        RangeError: a channel count, size, stride or dilation below 1; an even kernel_size that is not the stride.
        By `forward`: ShapeError, another number of channels; DtypeError, another dtype than the weights' (autocast converts);
        DeviceError; RangeError and FrameError, an out_grid or a structure that does not fit; ShapeError, channels that the
        children cannot share.
    Differentiable in features and parameters. Empty tensors and empty samples are legal.   Batch: samples do not meet.
    Cost: 2 · pairs · ci · co operations; near a surface about 13 pairs a cell of the 27 of a 3³ kernel. The neighbour table,
        4 · 27 bytes a cell, is built once for a grid and kernel and kept on the grid.
    Source: the convolution of TRELLIS.2's SC-VAE (stride 1); differences: none. Layout: published files have (co, x, y, z, ci).
    Example:
        >>> conv = SparseConv3d(16, 32)
        >>> y = conv(x)                                                   # x: SparseTensor of 16 channels
        >>> y.grid is x.grid, tuple(conv.weight.shape)
        (True, (27, 16, 32))
        >>> coarse = SparseConv3d(16, 32, kernel_size=2, stride=2)(x)     # half the resolution
        >>> fine = SparseConv3d(32, 16, kernel_size=2, stride=2, transposed=True)(coarse, out_grid=x.grid)
    """

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
        require_channels("SparseConv3d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.key = make_key("SparseConv3d", kernel_size, dilation, stride, padding, sites, transposed)
        self.backend = backend
        shape = (in_channels, out_channels)
        self.weight = nn.Parameter(torch.zeros(shape if self.key.volume == 1 else (self.key.volume, *shape)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases anew."""
        bound = 1 / math.sqrt(self.key.volume * self.in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: SparseTensor, out_grid: VoxelGrid | None = None, *, structure: Structure | None = None) -> SparseTensor:
        """Convolve.

        Args:
            x: (n cells, ci).
            out_grid: the outputs, where they are known: the level to return to, or the cells to generate.
            structure: the output channels are those of each output cell's children, child after child: give them to the
                children, as `channel_to_space` would. Without gradients, children that do not exist cost nothing.
        Returns:
            (n_out cells, co) on `out_grid`, on x's own grid (stride 1), or on the grid that the kernel makes;
            with a structure of 8 children, (children, co / 8) on `structure.children`.
        """
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
        if structure is None:
            return SparseTensor(table.out_grid, sparse_conv(x.feats, self.weight, self.bias, table, backend=self.backend))
        if not structure.parents.same_cells(table.out_grid):
            raise RangeError(f"SparseConv3d: structure.parents must be the output cells, {table.out_grid!r}; got {structure.parents!r}.")
        feats = sparse_conv_children(x.feats, self.weight, self.bias, table, structure, backend=self.backend)
        return SparseTensor(structure.children, feats)

    def extra_repr(self) -> str:
        key = self.key
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={key.kernel_size}"]
        parts += [f"{name}={value}" for name, value in (("stride", key.stride), ("dilation", key.dilation)) if value != (1, 1, 1)]
        parts += ["transposed=True"] if key.transposed else []
        parts += ["bias=False"] if self.bias is None else []
        return ", ".join(parts)
