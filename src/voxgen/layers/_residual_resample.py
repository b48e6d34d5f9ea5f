"""Sparse residual autoencoding: blocks that change the level and keep a shortcut without parameters."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.conv import sparse_conv_children
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel

from . import _checkpoint
from ._checks import require_cells, require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._residual import zeroed
from ._sums import activate, add

CHILDREN = 8


def group_average(feats: Feats, out_channels: int) -> Feats:
    where = "group_average"
    require_tensor(where, "feats", feats, ("n", "c"), FLOATS)
    width = require_int(where, "out_channels", out_channels, 1)
    if feats.shape[1] % width:
        raise ShapeError(f"{where}: out_channels must divide the {feats.shape[1]} channels of feats; got {width}.")
    return feats.unflatten(1, (width, feats.shape[1] // width)).mean(-1)


def repeat_channels(feats: Feats, out_channels: int) -> Feats:
    where = "repeat_channels"
    require_tensor(where, "feats", feats, ("n", "c"), FLOATS)
    width = require_int(where, "out_channels", out_channels, 1)
    if feats.shape[1] == 0 or width % feats.shape[1]:
        raise ShapeError(f"{where}: out_channels must be a multiple of the {feats.shape[1]} channels of feats; got {width}.")
    return feats.repeat_interleave(width // feats.shape[1], 1)


class ResidualDownsample(nn.Module):
    def __init__(self, channels: int, out_channels: int, *, shortcut: bool = True, checkpoint: bool = False) -> None:
        super().__init__()
        where = "ResidualDownsample"
        require_int(where, "channels", channels, 1)
        require_int(where, "out_channels", out_channels, 1)
        if out_channels % CHILDREN or CHILDREN * channels % out_channels:
            raise ShapeError(
                f"{where}: out_channels must be a multiple of {CHILDREN} (a part for each child) that divides "
                f"{CHILDREN} · channels = {CHILDREN * channels} (equal groups to average); got out_channels {out_channels} "
                f"with channels {channels}."
            )
        self.channels = channels
        self.out_channels = out_channels
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels // CHILDREN)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.shortcut = shortcut
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure | None = None) -> tuple[SparseTensor, Structure]:
        where = "ResidualDownsample"
        require_input(where, x, self.channels, self.conv1.weight)
        if structure is None:
            structure = Structure.of_children(x.grid)
        else:
            require_cells(where, "structure.children", structure.children, x)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure), structure

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = self.conv1(x.with_feats(activate(self.norm1, x.feats)))
        h = SparseTensor(structure.parents, space_to_channel(h.feats, structure))
        h = self.conv2(h.with_feats(activate(self.norm2, h.feats)))
        if not self.shortcut:
            return h
        # groups never cross children, so each child is averaged before the children come side by side
        own = group_average(x.feats, self.out_channels // CHILDREN)
        return h.with_feats(add(h.feats, space_to_channel(own, structure)))


class ResidualUpsample(nn.Module):
    def __init__(self, channels: int, out_channels: int, *, shortcut: bool = True, checkpoint: bool = False) -> None:
        super().__init__()
        where = "ResidualUpsample"
        require_int(where, "channels", channels, 1)
        require_int(where, "out_channels", out_channels, 1)
        if channels % CHILDREN or out_channels % (channels // CHILDREN):
            raise ShapeError(
                f"{where}: channels must be a multiple of {CHILDREN} (a part for each child), and out_channels of channels / {CHILDREN} "
                f"(equal repetition); got channels {channels} with out_channels {out_channels}."
            )
        self.channels = channels
        self.out_channels = out_channels
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, CHILDREN * out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.shortcut = shortcut
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        where = "ResidualUpsample"
        require_input(where, x, self.channels, self.conv1.weight)
        require_cells(where, "structure.parents", structure.parents, x)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure)

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = activate(self.norm1, x.feats)
        conv, table = self.conv1, neighbor_table(x.grid, kernel_size=3)
        h = SparseTensor(structure.children, sparse_conv_children(h, conv.weight, conv.bias, table, structure, backend=conv.backend))
        h = self.conv2(h.with_feats(activate(self.norm2, h.feats)))
        if not self.shortcut:
            return h
        own = channel_to_space(x.feats, structure)  # (n, C / 8); added by broadcasting, so its repetition is never stored
        parts = (own.shape[1], self.out_channels // own.shape[1])
        return h.with_feats(add(h.feats.unflatten(1, parts), own[:, :, None]).flatten(1))
