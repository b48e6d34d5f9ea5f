"""TimedResidualBlock: sparse convolutions modulated by time, at the ends of a latent flow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_choice, require_tensor
from voxgen.layers import LayerNorm32, SparseConv3d
from voxgen.layers._checks import require_channels, require_input
from voxgen.layers._residual import skip, zeroed
from voxgen.ops.resample import Structure, pool, subdivide
from voxgen.ops.segment import segment_broadcast

__all__ = ["TimedResidualBlock"]

EPS = 1e-6


class TimedResidualBlock(nn.Module):
    """y = conv2(SiLU(norm2(conv1(SiLU(norm1(x')))) · (1 + scale) + shift)) + skip(x'), x' being x, its parents' means or its children.

    Args:
        channels, out_channels: C, O.
        time_channels: width of the time embedding.
        pooling: of the way down: "mean_plus_one" divides by one more than there are children, as TRELLIS' weights need; "mean".
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, O).   conv1.bias: (O,).   conv2: (27, O, O), zero at first.
        emb_layers.1: time_channels to 2 O, scale first.   skip_connection: C to O; only where O is not C.
    Raises:
        RangeError: a width below 1, another pooling.   ShapeError, DtypeError, DeviceError: input or time that do not fit.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Source: `SparseResBlock3d` of TRELLIS; differences: the structure is an argument.
    Example:
        >>> block = TimedResidualBlock(16, 32, time_channels=64)
        >>> block(x, torch.zeros(x.grid.batch_size, 64)).channels         # x: SparseTensor of 16 channels
        32
    """

    def __init__(self, channels: int, out_channels: int, time_channels: int, *, pooling: str = "mean_plus_one") -> None:
        super().__init__()
        where = "TimedResidualBlock"
        require_channels(where, channels=channels, out_channels=out_channels, time_channels=time_channels)
        require_choice(where, "pooling", pooling, ("mean", "mean_plus_one"))
        self.norm1 = LayerNorm32(channels, eps=EPS)
        self.conv1 = SparseConv3d(channels, out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False, eps=EPS)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.time_channels = time_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        self.skip_connection = skip(channels, out_channels)
        self.pooling = pooling

    def forward(
        self, x: SparseTensor, time: Float[Tensor, "b e"], *, down: Structure | None = None, up: Structure | None = None
    ) -> SparseTensor:
        """One block.

        Args:
            x: (n cells, C).
            time: (b, time_channels) embedding of each sample's time.
            down: the structure whose children are the cells of x: go to its parents.   up: whose parents are: go to its children.
        """
        where = "TimedResidualBlock"
        require_input(where, x, self.conv1.in_channels, self.conv1.weight)
        require_tensor(where, "time", time, (x.grid.batch_size, self.time_channels), FLOATS, hint="One row a sample.")
        if down is not None:
            x = SparseTensor(down.parents, pool(x.feats, down, "mean" if self.pooling == "mean" else "mean_plus_one"))
        if up is not None:
            x = SparseTensor(up.children, subdivide(x.feats, up))
        scale, shift = self.emb_layers(time.to(self.conv1.weight.dtype)).to(x.dtype).chunk(2, 1)
        rows, offsets = len(x), x.grid.offsets
        h = self.conv1(x.with_feats(torch.nn.functional.silu(self.norm1(x.feats))))
        modulated = self.norm2(h.feats) * (1 + segment_broadcast(scale, offsets, rows=rows)) + segment_broadcast(shift, offsets, rows=rows)
        h = self.conv2(h.with_feats(torch.nn.functional.silu(modulated)))
        return h.with_feats(h.feats + self.skip_connection(x.feats))
