"""What views of a grid have in common: which sample each shows, and the maps from cell indices to pixels and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import Camera, VoxelGrid
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError

SINGULAR = 1e-12
"""A linear map whose determinant is smaller, relative to the product of its rows' lengths, has no inverse worth the name."""


class Views(NamedTuple):
    """v views of a grid, all in float64.

    sample: (v,) int64 on the CPU.
    project: (v, 3, 4) index point (x, y, z, 1) → (column, row, 1) · z for a perspective camera, (column, row, z) for an orthographic
        one; z is the depth in world units.
    unproject: (v, 3, 4) from that back to the index point.
    """

    sample: Tensor
    project: Tensor
    unproject: Tensor
    width: int
    height: int
    near: float
    far: float
    orthographic: bool


def views_of(where: str, grid: VoxelGrid, camera: Camera, sample: Tensor | None) -> Views:
    """Check a camera and the samples its views show; see `carve_by_depth`.

    Raises:
        ShapeError, DtypeError, DeviceError: sample does not fit.   RangeError: a sample that does not exist, a camera that is not
        finite or has no inverse.
    """
    require_same_device(where, grid=grid.coords, camera=camera.world_to_camera)
    shown = _samples(where, grid, len(camera), sample)
    pose = camera.world_to_camera.detach().double()
    pixels = camera.intrinsics.detach().double()
    _require_invertible(where, "world_to_camera", pose[:, :3, :3], pose[:, :3])
    _require_invertible(where, "intrinsics", pixels[:, :2, :2], pixels[:, :2])
    scale = torch.tensor(grid.frame.voxel_size, dtype=torch.float64, device=pose.device)
    shift = torch.tensor(grid.frame.origin, dtype=torch.float64, device=pose.device)
    linear, moved = pose[:, :3, :3], pose[:, :3, 3] + pose[:, :3, :3] @ shift
    to_camera = torch.cat((linear * scale, moved[:, :, None]), 2)
    lens = torch.zeros(len(pose), 3, 3, dtype=torch.float64, device=pose.device)
    lens[:, :2, :2] = pixels[:, :2, :2]
    lens[:, 2, 2] = 1
    project = lens @ to_camera
    if camera.orthographic:
        project[:, :2, 3] += pixels[:, :2, 2]
    else:
        project[:, :2] += pixels[:, :2, 2:] * to_camera[:, 2:]
    inverse = torch.linalg.inv(project[:, :, :3])
    unproject = torch.cat((inverse, -inverse @ project[:, :, 3:]), 2)
    return Views(shown, project, unproject, camera.width, camera.height, camera.near, camera.far, camera.orthographic)


def index_to_pixels(views: Views, view: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 3) float64 index points → column, row, depth. Column and row mean nothing where a perspective depth is not positive."""
    # one product after the other, as the compiled engine does it, so that both round alike
    x, y, z = points.unbind(-1)
    column, row, depth = (m[0] * x + m[1] * y + m[2] * z + m[3] for m in views.project[view])
    return (column, row, depth) if views.orthographic else (column / depth, row / depth, depth)


def pixels_to_index(views: Views, view: int, column: Tensor, row: Tensor, depth: Tensor) -> Tensor:
    """Inverse of `index_to_pixels`, (..., 3)."""
    a, b = (column, row) if views.orthographic else (column * depth, row * depth)
    return torch.stack([m[0] * a + m[1] * b + m[2] * depth + m[3] for m in views.unproject[view]], -1)


def _samples(where: str, grid: VoxelGrid, views: int, sample: Tensor | None) -> Tensor:
    if sample is None:
        if grid.batch_size not in (1, views):
            raise ShapeError(f"{where}: {views} views of {grid.batch_size} samples need sample, (v,) int64: which sample each view shows.")
        return torch.zeros(views, dtype=torch.int64) if grid.batch_size == 1 else torch.arange(views)
    require_tensor(where, "sample", sample, (views,), (torch.int64,), hint="One entry a view.")
    shown = sample.cpu()
    if views and (int(shown.min()) < 0 or int(shown.max()) >= grid.batch_size):
        got = f"from {int(shown.min())} to {int(shown.max())}"
        raise RangeError(f"{where}: sample must name some of the grid's {grid.batch_size} samples; got values {got}.")
    return shown


def _require_invertible(where: str, name: str, matrix: Tensor, used: Tensor) -> None:
    finite = used.isfinite().flatten(1).all(1)
    sharp = torch.linalg.det(matrix).abs() > SINGULAR * matrix.norm(dim=2).prod(1)
    bad = ~(finite & sharp)
    if bool(bad.any()):
        view = int(bad.nonzero()[0])
        raise RangeError(
            f"{where}: camera.{name} must be finite and invertible; view {view} of {len(bad)} has {used[view].tolist()}. "
            "A focal length of 0, or a pose that is all zeros?"
        )
