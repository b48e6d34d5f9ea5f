"""Truncated signed distances: what they should be, from a depth map or from a mesh, and how far values are from that."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Points
from voxgen.core.checks import require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.mesh_distance import OrientedMesh, oriented_distance

from ._reduce import mean, require_pair

Reduction = Literal["mean", "sum"]


class ProjectiveTSDF(NamedTuple):
    """Distances along the views' axes. value: (v, p) in [−truncation, truncation], positive in front.   known: (v, p) bool."""

    value: Float[Tensor, "v p"]
    known: Bool[Tensor, "v p"]


def tsdf_l1(
    sdf: Float[Tensor, "*s"],
    target: Float[Tensor, "*s"],
    among: Bool[Tensor, "*s"] | None = None,
    *,
    voxel_size: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Absolute difference of signed distances, in voxels.

    A SparseFlex decoder whose last layer starts at zero gives one value everywhere, so it has no surface and gets no gradient from
    pictures: this term starts its training.

    Args:
        sdf, target: floats of one shape, world units: values at corners, and `geometric_tsdf` or `projective_tsdf` at their positions.
        among: bool of that shape, the values that count; None: all. Others have no influence, not even if they are NaN.
        voxel_size: world length of a cell, so that the weight does not depend on the resolution; 1 leaves the units.
        reduction: "sum" is the printed equation, whose weight depends on the number of corners.
    Returns:
        Scalar in float32 (float64 if an input is); 0 where nothing counts. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: voxel_size is not positive.
    Source: Focusing, Eq. (5), weight 1 in the first 12,000 of 40,000 steps. Differences: mean, voxels.
    """
    where = "tsdf_l1"
    require_choice(where, "reduction", reduction, ("mean", "sum"))
    if not 0 < voxel_size < math.inf:
        raise RangeError(f"{where}: voxel_size must be positive and finite; got {voxel_size}.")
    one, other = require_pair(where, ("sdf", "target"), sdf, target, tuple(sdf.shape) if isinstance(sdf, Tensor) else ())
    if among is not None:
        require_tensor(where, "among", among, tuple(sdf.shape), (torch.bool,))
        require_same_device(where, sdf=sdf, among=among)
        one, other = one[among], other[among]
    errors = (one - other).abs() / voxel_size
    return mean(where, errors, None) if reduction == "mean" else errors.sum()


def geometric_tsdf(points: Points, mesh: TriMesh | OrientedMesh, truncation: float, *, backend: str = "auto") -> Float[Tensor, " p"]:
    """Distance to the nearest point of a mesh, with the sign of the side there, truncated.

    It asks for no inside, so thin and open shapes have it; their faces must be wound consistently.

    Args:
        points: (p, 3) float32 or float64, world units: the positions of corners, `flex.positions`. No gradient reaches them.
        mesh: the true surface in that frame; an `OrientedMesh` saves preparing it for each call.
        truncation: world units, positive; 3 voxels are usual.
        backend: engine of `mesh_distance`.
    Returns:
        (p,) of the dtype of points, in [−truncation, truncation], negative behind the surface.
    Raises:
        RangeError: truncation is not positive.   Others as `oriented_distance`.
    Source: Focusing leaves open how its raw distances are signed; this is one of two workable ways.
    """
    _require_truncation("geometric_tsdf", truncation)
    return oriented_distance(points.detach(), mesh, backend=backend).clamp(-truncation, truncation)


def projective_tsdf(
    points: Points,
    depth: Float[Tensor, "v h w"],
    camera: Camera,
    truncation: float,
    *,
    background: float = math.inf,
    compat: Literal["trellis"] | None = None,
) -> ProjectiveTSDF:
    """How far points lie before the surface that views see, along their axes, truncated.

    value = clamp(D − z, ± truncation), where D is the depth in the pixel that the point falls in. Points of which a view says nothing are
    not known: deeper than the truncation behind what it sees, beside the object, outside the picture or the clip planes.

    Args:
        points: (p, 3) floats, world units. No gradient reaches them.
        depth: (v, h, w) z in camera space, world units.
        camera: v views of height h and width w.
        truncation: world units, positive; 3 voxels in TRELLIS.
        background: the number that marks pixels without surface in `depth`.
        compat: "trellis": D is interpolated between pixels, as if their centres reached the image's border, and continued beyond it; a
            background of 0 mixes with it, and what is outside the picture or behind the camera is not left out.
    Returns:
        ProjectiveTSDF in the dtype of points.
    Raises:
        ShapeError, DtypeError, DeviceError: depth of another size than the camera's, and the like.   RangeError: truncation is not
        positive, or a depth is NaN.
    Source: TRELLIS, mesh decoder (mean squared error over known points, weight 0.01: `sdf_mse`). Differences: see compat.
    """
    where = "projective_tsdf"
    _require_truncation(where, truncation)
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis",))
    require_tensor(where, "points", points, ("p", 3), (torch.float32, torch.float64))
    require_tensor(where, "depth", depth, (len(camera), camera.height, camera.width), (torch.float32, torch.float64))
    require_same_device(where, points=points, depth=depth, camera=camera.world_to_camera)
    if bool(depth.isnan().any()):
        raise RangeError(f"{where}: depth must not be NaN; {int(depth.isnan().sum())} pixels are.")
    place = camera.to_camera(points.detach())
    z = place[..., 2]
    lens = camera.intrinsics.to(place)
    ray = place[..., :2] if camera.orthographic else place[..., :2] / z[..., None]
    pixel = ray @ lens[:, :2, :2].transpose(1, 2) + lens[:, None, :2, 2]
    size = pixel.new_tensor([camera.width, camera.height])
    if compat == "trellis":
        images = depth.to(place)[:, None]
        seen = torch.nn.functional.grid_sample(
            images, (2 * pixel / size - 1)[:, None], mode="bilinear", padding_mode="border", align_corners=True
        )[:, 0, 0]
        known = seen - z > -truncation
    else:
        inside = (z >= camera.near) & (z <= camera.far) & ((pixel >= 0) & (pixel < size)).all(-1)
        column, row = torch.where(inside[..., None], pixel, 0).long().unbind(-1)
        seen = depth.to(place).flatten(1).gather(1, row * camera.width + column)
        known = inside & (seen != background) & seen.isfinite() & (seen - z > -truncation)
    return ProjectiveTSDF((seen - z).clamp(-truncation, truncation), known)


def _require_truncation(where: str, truncation: float) -> None:
    if not 0 < truncation < math.inf:
        raise RangeError(f"{where}: truncation must be positive and finite, in world units; got {truncation}.")
