"""Which cells can be seen in a part of an image, before their Gaussians exist."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import Camera, Selection, VoxelGrid
from voxgen.core.checks import require_int, require_same_device
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.splat import Crop, SplatPreset, View
from voxgen.ops.splat import resolve_crop as _resolve_crop
from voxgen.ops.splat import resolve_preset as _resolve_preset

REACH = math.sqrt(2 * math.log(255))
"""Standard deviations at which a Gaussian of opacity 1 falls to 1/255, 3.33."""
ROUNDING = 1.0
"""Pixels of slack."""


def cull_voxels(
    grid: VoxelGrid,
    camera: Camera,
    crop: Crop | None = None,
    *,
    largest_scale: float,
    voxel_size: float = 1.5,
    preset: str | SplatPreset = "gsplat",
    sample: int | None = None,
    margin: float = 1.0,
) -> Selection:
    """Keep the cells of which some Gaussian may touch a tile, so that the Gaussian head runs for these alone.

    With `margin=1` the tile is what it is with all cells, whatever the head says, as long as no scale exceeds `largest_scale`. A
    cell is kept if the picture of the ball in which its centres may lie, widened by 3.33 standard deviations of the largest Gaussian and
    the blur, meets the tile.

    Args:
        grid: (n cells) in the world frame of the camera.
        camera: one view.
        crop: (x0, y0, w, h) as in `render_gaussians`; None is the whole image.
        largest_scale: bound on activated scales, world units. `GaussianActivation(largest_scale=...)` guarantees one, in cells; without
            a cap, measure it.
        voxel_size: how far centres go, as in `GaussianActivation`: at most half of it, in cells, along each axis.
        preset: as in `render_gaussians`; its blur, near, and clamp count.
        sample: the object that the view shows: cells of others are dropped. None: all are looked at.
        margin: 1 is safe; less keeps fewer cells, and the tile's border gets wrong.
    Returns:
        Selection of the kept cells, in the order of the grid.
    Raises:
        ShapeError: a camera of several views, a crop that is none.   RangeError: a number or crop out of range.   DeviceError.
    Empty grid: an empty selection.
    Source: Sparse-Up, tiles. Difference: the picture of a ball is exact also far from the optical axis.
    """
    where = "cull_voxels"
    constants = _resolve_preset(where, preset, None)
    window = _resolve_crop(where, camera, crop)
    if len(camera) != 1:
        raise ShapeError(f"{where}: camera must have one view; it has {len(camera)}. Take one with camera[i].")
    require_same_device(where, grid=grid.coords, camera=camera.world_to_camera)
    if not 0 <= largest_scale < math.inf or not voxel_size >= 0 or not margin >= 0:
        raise RangeError(
            f"{where}: largest_scale must be finite, and it, voxel_size and margin not negative; got {(largest_scale, voxel_size, margin)}."
        )
    view = View.of(camera, 0, window, constants)
    centres = grid.frame.centers(grid.cells, torch.float64) @ view.rotation.detach().T + view.translation.detach()
    radius = voxel_size / 2 * math.hypot(*grid.frame.voxel_size) * margin
    depth = centres[:, 2]
    keep = (depth + radius >= view.near) & (depth - radius <= view.far)
    cut = depth - radius <= (max(view.near, 0.0) if not camera.orthographic else -math.inf)
    nearest = torch.where(cut, 1.0, depth - radius)
    for axis in (0, 1):
        focal, middle = float(view.intrinsics[axis, axis]), float(view.intrinsics[axis, 2])
        if camera.orthographic:
            low, high = focal * (centres[:, axis] - radius) + middle, focal * (centres[:, axis] + radius) + middle
            spread = torch.full_like(depth, focal * largest_scale)
        else:
            low, high = _slopes(centres[:, axis], torch.where(cut, 1 + radius, depth), radius)
            slope = torch.maximum(low.abs(), high.abs()).clamp_max(max(-view.low[axis], view.high[axis]))
            low, high = focal * low + middle, focal * high + middle
            spread = focal / nearest * largest_scale * (1 + slope * slope).sqrt()
        widened = margin * (REACH * (spread.square() + constants.blur).sqrt() + ROUNDING)
        start, size = window[axis], window[axis + 2]
        keep = keep & (cut | ((high + widened > start) & (low - widened < start + size)))
    if sample is not None:
        keep = keep & (grid.batch == require_int(where, "sample", sample, 0, grid.batch_size - 1))
    return Selection(grid, keep)


def _slopes(x: Tensor, z: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Least and greatest x / z in a disc around (x, z) that does not reach z = 0: its tangents through the origin."""
    root = radius * (x * x + z * z - radius * radius).clamp_min(0).sqrt()
    below = z * z - radius * radius
    return (x * z - root) / below, (x * z + root) / below
