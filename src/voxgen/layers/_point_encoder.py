"""PointCloudEncoder: features of surface points, gathered into voxels."""

from __future__ import annotations

from typing import cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import Offsets, Points
from voxgen.core.batching import counts_from_offsets
from voxgen.core.checks import FLOATS, require_choice, require_finite, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.segment import segment_broadcast, segment_reduce

from . import _checkpoint
from ._checks import require_channels
from ._point_voxels import Stray, runs_of_voxels, sort_points

__all__ = ["PointCloudEncoder"]

RUN, DEVICE_RUN = 1 << 13, 1 << 18
"""Points that go through the layers at a time, on a CPU, where the features of a run stay in its cache, and elsewhere."""


class PointCloudEncoder(nn.Module):
    """Points with normals to one row of features a voxel: a shared MLP on each point that sees its voxel's mean in between.

    A point goes in as its place in its voxel, in [−1, 1]³, and its normal. A linear layer, then residual blocks; from the second
    on a block sees each point's feature beside the mean over the point's voxel. The result is the mean of a last linear map.

    Args:
        out_channels: width of the result.
        hidden: width H of a point's feature.
        num_blocks: residual blocks, at least 1.
        use_normals: whether normals go in.
        stray: what happens to a point whose voxel does not exist: "error"; "drop" leaves it out; "compat" does as the original,
            which puts it into the next voxel of its sample in lexicographic order, where it changes the means, and drops it behind
            the last.
        checkpoint: compute the features of points again in the backward pass instead of keeping them.
    Parameters: fc_pos (6 → 2H, or 3 → 2H), blocks.{i}.{fc_0 (2H → H), fc_1 (H → H), shortcut (2H → H, no bias)}, fc_c (H → out).
    Raises:
        RangeError: a width below 1, an unknown word. By `forward`: stray points, NaN and infinity, offsets that fall.   ShapeError,
        DtypeError, DeviceError: tensors that do not fit each other.
    Differentiable in parameters, normals and, inside a voxel, points. No points and no voxels are legal.
    Batch: samples of any numbers of points; they do not meet.
    Source: TripoSF, point encoder (`LocalPoolPointnet`; its paper says max pooling, code and weights take the mean), after
        convolutional occupancy networks; differences: stray points are an error, samples need not have equal numbers of points.
    Numerics: always in float32 (float64 with float64 weights), also under autocast. Means in a fixed order: the same result in
        each run. What is linear is applied after the mean instead of before, and the mean's half of a layer once a voxel.
    Cost: about 2H²·(num_blocks · 3 + 1) operations a point, a third less than layer by layer. Memory: without gradients, and with
        `checkpoint`, the sorted points and a run of 8,192; otherwise some 8H floats a point and block.
    Example:
        >>> from voxgen.core import VoxelGrid
        >>> encoder = PointCloudEncoder(32, hidden=16)
        >>> grid, _ = VoxelGrid.build(torch.zeros(1, 4, dtype=torch.int32), resolution=4)
        >>> points = torch.full((5, 3), -0.4)
        >>> encoder(points, torch.zeros(5, 3), torch.tensor([0, 5]), grid).feats.shape
        torch.Size([1, 32])
    """

    def __init__(
        self,
        out_channels: int = 1024,
        hidden: int = 256,
        num_blocks: int = 5,
        *,
        use_normals: bool = True,
        stray: Stray = "error",
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        where = "PointCloudEncoder"
        require_channels(where, out_channels=out_channels, hidden=hidden, num_blocks=num_blocks)
        require_choice(where, "stray", stray, get_args(Stray))
        self.use_normals = use_normals
        self.stray: Stray = stray
        self.checkpoint = checkpoint
        self.fc_pos = nn.Linear(6 if use_normals else 3, 2 * hidden)
        self.blocks = nn.ModuleList(PointBlock(hidden) for _ in range(num_blocks))
        self.fc_c = nn.Linear(hidden, out_channels)

    def forward(self, points: Points, normals: Float[Tensor, "p 3"] | None, offsets: Offsets, grid: VoxelGrid) -> SparseTensor:
        """Features (n, out_channels) of the cells of a grid; zeros for those without points.

        Args:
            points: (p, 3) floats, world units of the grid's frame, sample after sample. Clamped to the grid's box less a
                millionth of its side, so that the upper border belongs to the last cells.
            normals: (p, 3) floats; None without `use_normals`.
            offsets: (b + 1,) int64: the points of sample s are offsets[s]:offsets[s + 1].
            grid: (n cells) of b samples.
        """
        where = "PointCloudEncoder"
        self._check(where, points, normals, offsets, grid)
        dtype = torch.promote_types(self.fc_pos.weight.dtype, torch.float32)
        with torch.autocast(points.device.type, enabled=False):
            sorted_ = sort_points(where, points.to(dtype), offsets, grid, self.stray)
            inputs = sorted_.local
            if normals is not None:
                inputs = torch.cat([inputs, normals.to(dtype).index_select(0, sorted_.order)], 1)
            means = [
                _checkpoint.run(self.checkpoint, self._means, inputs[start:end], bounds)
                for start, end, bounds in runs_of_voxels(sorted_.bounds, RUN if inputs.device.type == "cpu" else DEVICE_RUN)
            ]
            rows = linear(self.fc_c, torch.cat(means)) if means else inputs.new_zeros(0, self.fc_c.out_features)
            out = inputs.new_zeros(len(grid), self.fc_c.out_features).index_copy(0, sorted_.rows, rows)
        return SparseTensor(grid, out)

    def _means(self, inputs: Tensor, bounds: Tensor) -> Tensor:
        """(points of some voxels, 6) to (voxels, H): the mean of the last block's features."""
        h = linear(self.fc_pos, inputs)
        h = self.blocks[0](h)
        for block in self.blocks[1:]:
            h = cast(PointBlock, block).beside_mean(h, bounds)
        return segment_reduce(h, bounds, "mean")

    def _check(self, where: str, points: Tensor, normals: Tensor | None, offsets: Tensor, grid: VoxelGrid) -> None:
        require_tensor(where, "points", points, ("p", 3), FLOATS, hint="World units of the grid's frame.")
        if (normals is not None) != self.use_normals:
            raise RangeError(f"{where}: normals must be given if and only if use_normals is set, which is {self.use_normals}.")
        if normals is not None:
            require_tensor(where, "normals", normals, (len(points), 3), FLOATS, hint="One row a point.")
        require_tensor(where, "offsets", offsets, (grid.batch_size + 1,), (torch.int64,), hint="Bounds of the grid's samples in points.")
        require_same_device(where, points=points, normals=normals, offsets=offsets, grid=grid.coords, weights=self.fc_pos.weight)
        require_finite(where, "points", points)
        if normals is not None:
            require_finite(where, "normals", normals)
        if int(offsets[0]) != 0 or bool((counts_from_offsets(offsets) < 0).any()):
            raise RangeError(f"{where}: offsets must begin at 0 and never fall; got {offsets.tolist()[:10]}.")
        if int(offsets[-1]) != len(points):
            raise ShapeError(f"{where}: offsets must end at the number of points, {len(points)}; got {int(offsets[-1])}.")


class PointBlock(nn.Module):
    """shortcut(x) + fc_1(gelu(fc_0(gelu(x)))) of 2H features to H."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc_0 = nn.Linear(2 * hidden, hidden)
        self.fc_1 = nn.Linear(hidden, hidden)
        self.shortcut = nn.Linear(2 * hidden, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = linear(self.fc_0, gelu(x))
        return linear(self.shortcut, x) + linear(self.fc_1, gelu(h))

    def beside_mean(self, x: Tensor, bounds: Tensor) -> Tensor:
        """The block on each row beside the mean of its segment, without making rows of 2H: the mean's part is that of its segment."""
        width = x.shape[1]
        mean = segment_reduce(x, bounds, "mean")
        first, short = self.fc_0.weight.to(x.dtype), self.shortcut.weight.to(x.dtype)
        shared = torch.cat([F.linear(gelu(mean), first[:, width:], self.fc_0.bias.to(x.dtype)), F.linear(mean, short[:, width:])], 1)
        h, skip = segment_broadcast(shared, bounds, rows=len(x)).chunk(2, 1)
        h = h + F.linear(gelu(x), first[:, :width])
        return skip + F.linear(x, short[:, :width]) + linear(self.fc_1, gelu(h))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the dtype of x, whatever that of its weights."""
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
