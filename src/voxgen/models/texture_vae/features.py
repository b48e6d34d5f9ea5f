"""What the texture encoder reads: features of views on the cells of a surface."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from voxgen.core import Camera, SparseTensor, VoxelGrid
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.project_features import Average, project_features

__all__ = ["surface_features"]


def surface_features(
    grid: VoxelGrid,
    features: Float[Tensor, "v c y x"],
    cameras: Camera,
    *,
    sample: Int64[Tensor, " v"] | Sequence[int] | None = None,
    average: Average = "all",
    depth: Float[Tensor, "v h w"] | None = None,
    depth_tolerance: float | None = None,
) -> SparseTensor:
    """Feature maps of views gathered on the cells of each sample of a batch.

    Args:
        grid: (n cells) of b samples.
        features: (v, c, y, x), one map a view (`encode_images`).
        cameras: v views, in the world of the grid's frame.
        sample: which sample each view shows; None: all show the only one.
        average: see `voxgen.ops.project_features.Average`; "all" is what TRELLIS' encoder was trained with.
        depth: (v, h, w) depth along z: features reach only the cells that a view sees (`render_geometry(...)`); None: all, as TRELLIS.
        depth_tolerance: how far behind the depth a cell still counts as seen; None: the diagonal of a cell.
    Returns:
        (n, c) in the dtype of features. Differentiable in features.
    Raises:
        RangeError: no sample given for a batch, or one that does not exist.   Others as `project_features`.
    """
    where = "surface_features"
    require_tensor(where, "features", features, (len(cameras), "c", "y", "x"), FLOATS, hint="One map for each of the cameras.")
    shown = torch.zeros(len(cameras), dtype=torch.int64) if sample is None else torch.as_tensor(sample, dtype=torch.int64).cpu()
    if sample is None and grid.batch_size != 1:
        raise RangeError(f"{where}: with {grid.batch_size} samples, sample must say which of them each view shows; got None.")
    require_tensor(where, "sample", shown, (len(cameras),), hint="One number for each of the cameras.")
    if len(shown) and not 0 <= int(shown.min()) <= int(shown.max()) < grid.batch_size:
        raise RangeError(f"{where}: sample must name one of {grid.batch_size} samples; got {shown.tolist()}.")
    size = grid.frame.voxel_size
    diagonal = sum(side * side for side in size) ** 0.5
    tolerance = diagonal if depth_tolerance is None else depth_tolerance
    points = grid.frame.centers(grid.cells).to(features.device)
    parts = []
    for index, own in enumerate(points.split(grid.offsets.diff().tolist())):
        views = (shown == index).nonzero()[:, 0].to(features.device)
        maps = None if depth is None else depth.index_select(0, views)
        seen = project_features(
            own, features.index_select(0, views), cameras[views], average=average, depth=maps, depth_tolerance=tolerance
        )
        parts.append(seen.feats)
    return SparseTensor(grid, torch.cat(parts) if parts else features.new_zeros(0, features.shape[1]))
