"""The pooled pair: the level changes by pooling and by nearest neighbours."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor
from voxgen.ops.resample import Pooling, Structure, pool, subdivide

from . import _checkpoint
from ._checks import require_cells, require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._residual import skip, zeroed
from ._sums import activate, add


class PooledDownsample(nn.Module):
    def __init__(self, channels: int, out_channels: int, pooling: Pooling = "mean", *, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.pooling: Pooling = pooling
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure | None = None) -> tuple[SparseTensor, Structure]:
        where = "PooledDownsample"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        if structure is None:
            structure = Structure.of_children(x.grid)
        else:
            require_cells(where, "structure.children", structure.children, x)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure), structure

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = SparseTensor(structure.parents, pool(activate(self.norm1, x.feats), structure, self.pooling))
        h = self.conv1(h)
        h = self.conv2(h.with_feats(activate(self.norm2, h.feats)))
        return h.with_feats(add(h.feats, self.skip_connection(pool(x.feats, structure, self.pooling))))


class NearestUpsample(nn.Module):
    def __init__(self, channels: int, out_channels: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        where = "NearestUpsample"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        require_cells(where, "structure.parents", structure.parents, x)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure)

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = SparseTensor(structure.children, subdivide(activate(self.norm1, x.feats), structure))
        h = self.conv1(h)
        h = self.conv2(h.with_feats(activate(self.norm2, h.feats)))
        # the linear map goes over parents: children of one parent share its result
        return h.with_feats(add(h.feats, subdivide(self.skip_connection(x.feats), structure)))
