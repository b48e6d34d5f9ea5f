"""Features of pictures gathered at points: what several views show of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.aliases import Points
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops._registry import Backend, Op

from ._taps import taps

__all__ = ["Average", "ProjectedFeatures", "project_features"]

OP = Op(
    "project_features",
    [
        Backend("torch", "voxgen.ops.project_features._torch:weighted_sum"),
        Backend("reference", "voxgen.ops.project_features._reference:weighted_sum"),
    ],
)

Average = Literal["all", "seen"]
"""What the sum over views is divided by: "all": the number of views, those included that do not see the point (TRELLIS); "seen": the sum
of the weights, so that a point seen by a few views has features of full size."""

TAPS_AT_ONCE = 1 << 18
"""Pairs of a view and a point whose places, and maps whose copies, are held at one time; at least one view."""


@dataclass(frozen=True, eq=False)
class ProjectedFeatures:
    """What the views show of each point. Made by `project_features`.

    Attributes:
        feats: (p, c) averages over the views, in the dtype of the features.
        weight: (p,) sum of what the views count, in the dtype of points: without normals their number, less what fades at borders.
        views: (p,) int32 how many views see the point.
    """

    feats: Float[Tensor, "p c"]
    weight: Float[Tensor, " p"]
    views: Int32[Tensor, " p"]


def project_features(
    points: Points,
    features: Float[Tensor, "v c h w"],
    cameras: Camera,
    *,
    average: Average = "all",
    depth: Float[Tensor, "v y x"] | None = None,
    depth_tolerance: float = 0.02,
    normals: Float[Tensor, "p 3"] | None = None,
    backend: str = "auto",
) -> ProjectedFeatures:
    """Average what feature maps of several views show at each point.

    A view sees a point that lies in front of it and inside its picture; with `depth`, only where nothing is in front of the point;
    with `normals`, only from the front, and it counts by the cosine between the normal and the direction to the camera.

    Args:
        points: (p, 3) float32 or float64, world units: centres of cells.
        features: (v, c, h, w) floats, one map a view over its whole picture, of any size: texel (row i, column j) has its centre at
            ((j + 0.5) / w, (i + 0.5) / h) of the picture. Bilinear; texels outside count as zero, so that a sample fades over half a
            texel beyond the border.
        cameras: v views.
        average: see `Average`. The default without depth and normals is what TRELLIS' encoder was trained with.
        depth: (v, y, x) depth along each camera's z of the nearest surface, world units, of any size; 0 or infinity: nothing there.
        depth_tolerance: how far behind that surface a point still counts as seen, world units; about the diagonal of a cell.
        normals: (p, 3) unit vectors out of the surface.
        backend: see docs/backends.md.
    Returns:
        ProjectedFeatures; 0 for points that no view sees. Differentiable in features and points.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: an unknown average, a tolerance that is
        negative or not finite.
    No points and no views are legal.   One object: for a batch, call it for each sample with its own views.
    Cost: 8 c operations and 4 c reads for each view and point; no tensor of (v, p, c) is made.
    Source: TRELLIS, features of a surface's cells from DINOv2 (each cell the mean over 150 views, no test of visibility).
        Differences: points behind a camera are not seen, where the original mirrors them into the picture; visibility and weights
        are options.
    Numerics: places in the dtype of points; sums in float32 (float64 for float64), rounded once to the dtype of features.
    Example:
        >>> cameras = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]), width=8, height=8)
        >>> project_features(torch.zeros(1, 3), torch.ones(2, 3, 4, 4), cameras).feats
        tensor([[1., 1., 1.]])
    """
    where = "project_features"
    require_tensor(where, "points", points, ("p", 3), (torch.float32, torch.float64))
    require_tensor(where, "features", features, (len(cameras), "c", "h", "w"), FLOATS, hint="One map for each of the cameras.")
    if depth is not None:
        require_tensor(where, "depth", depth, (len(cameras), "y", "x"), FLOATS, hint="One depth map for each of the cameras.")
    if normals is not None:
        require_tensor(where, "normals", normals, (len(points), 3), (torch.float32, torch.float64))
    require_same_device(where, points=points, features=features, cameras=cameras.world_to_camera, depth=depth, normals=normals)
    require_choice(where, "average", average, get_args(Average))
    if not 0 <= depth_tolerance < math.inf:
        raise RangeError(f"{where}: depth_tolerance must be finite and at least 0; got {depth_tolerance}.")
    v, c, h, w = features.shape
    wide = torch.promote_types(features.dtype, torch.float32)
    total, weight = points.new_zeros(len(points), c, dtype=wide), points.new_zeros(len(points))
    views = torch.zeros(len(points), dtype=torch.int32, device=points.device)
    engine = OP.engine(backend, features, points)
    step = max(1, TAPS_AT_ONCE // max(len(points), 1))
    for first in range(0, v if len(points) and h * w else 0, step):
        part = slice(first, min(first + step, v))
        seen = taps(points, cameras[part], (h, w), None if depth is None else depth[part], depth_tolerance, normals)
        rows = features[part].to(wide).permute(0, 2, 3, 1).reshape(-1, c)
        total = total + engine(rows, seen.rows, seen.share.to(wide))
        each = seen.share.sum(-1)
        weight = weight + each.sum(0)
        views += (each > 0).sum(0).int()
    if average == "all":
        mean = total / max(v, 1)
    else:
        mean = torch.where((weight > 0)[:, None], total / weight.clamp_min(torch.finfo(weight.dtype).tiny)[:, None].to(wide), 0)
    return ProjectedFeatures(mean.to(features.dtype), weight, views)
