"""Pictures of 3D Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from voxgen.core import Camera, Gaussians
from voxgen.core.aliases import Float3
from voxgen.core.checks import describe, require_finite, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.splat import Crop, SplatPreset, harmonic_colors, rotation_matrices, splat
from voxgen.ops.splat import check_gaussians as _check_gaussians


@dataclass(frozen=True, eq=False)
class GaussianImages:
    """v images of h × w pixels of Gaussians.

    Args:
        color: (v, h, w, 3) over the background, display-referred, not cut at 1.
        alpha: (v, h, w) in [0, 1), how much of the pixel is covered.
        depth: (v, h, w) mean depth z of what covers the pixel, by its share; world units; infinite where alpha is 0.
        normal: (v, h, w, 3) world axes, length 1, towards the camera: the mean direction of the shortest axes of what covers the pixel; 0
            where there is nothing, or only balls. None unless asked for.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor | None = None


def render_gaussians(
    splats: Gaussians,
    camera: Camera,
    *,
    crop: Crop | None = None,
    background: Float3 | Tensor = (0.0, 0.0, 0.0),
    sh_degree: int | None = None,
    antialiased: bool | None = None,
    preset: str | SplatPreset = "gsplat",
    sample: Int64[Tensor, " v"] | None = None,
    normals: bool = False,
    backend: str = "auto",
) -> GaussianImages:
    """Colour, alpha, depth and normals of Gaussians, differentiable.

    Args:
        splats: b objects; `voxgen.representations.GaussianSplats`, or any `core.Gaussians`.
        camera: v views. Near and far are the camera's, unless the preset has its own.
        crop: (x0, y0, w, h), draw only this part of each image. It is a part of the full image, bit for bit on a CPU; moving the principal
            point of the camera instead is not.
        background: one colour, or (3,), or (v, 3).
        sh_degree: use harmonics up to this degree; None uses all.
        antialiased: switch the compensation of small Gaussians on or off; None leaves it to the preset.
        preset: "gsplat", "trellis", or constants of your own (`voxgen.ops.splat.SplatPreset`).
        sample: (v,) int64, which object each view shows. None: the only object; or, for v objects, object i in view i.
        normals: also give normals.
        backend: see docs/backends.md.
    Returns:
        GaussianImages, dtype of the Gaussians. Differentiable in all tensors; in the camera with the engines torch and reference.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   RangeError: values that are not finite, negative
        scales, opacities outside [0, 1], a crop outside the image or without pixels, an object that does not exist.
    Nothing to draw, or nothing in view: the background, alpha 0, infinite depth; gradients of 0, never NaN.
    Source: 3D Gaussian splatting (Kerbl et al. 2023), gsplat 1.5.3, TRELLIS; see `voxgen.ops.splat`. Differences: depth is infinite where
        nothing is (gsplat: 0).
    Example:
        >>> render_gaussians(splats, orbit_cameras(4, width=64, height=64)).color.shape
        torch.Size([4, 64, 64, 3])
    """
    where = "render_gaussians"
    if not isinstance(splats, Gaussians):
        raise DtypeError(f"{where}: splats must be Gaussians; got {describe(splats)}.")
    if not isinstance(camera, Camera):
        raise DtypeError(f"{where}: camera must be a Camera; got {describe(camera)}.")
    require_same_device(where, splats=splats.means, camera=camera.world_to_camera)
    shown = _shown(where, splats, len(camera), sample)
    colors = _background(where, background, splats.means, len(camera))
    if sh_degree is not None:
        require_int(where, "sh_degree", sh_degree, 0, splats.degree)
    _check_gaussians(where, splats.means, splats.rotations, splats.scales, splats.opacities)
    if len(splats):
        require_finite(where, "sh", splats.sh.detach())
    objects = {index: splats if splats.batch_size == 1 else splats.sample(index) for index in set(shown)}
    views: list[tuple[Tensor, ...]] = []
    for i, index in enumerate(shown):
        item, view = objects[index], camera[i]
        features = _features(item, view, sh_degree, normals)
        out = splat(
            item.means,
            item.rotations,
            item.scales,
            item.opacities,
            features,
            view,
            crop=crop,
            preset=preset,
            antialiased=antialiased,
            backend=backend,
        )
        views.append(_image(out.image[0], out.alpha[0], colors[i]))
    if not views:
        _, _, width, height = (0, 0, camera.width, camera.height) if crop is None else crop
        empty = splats.means.new_zeros(0, height, width)
        color = empty[..., None].expand(-1, -1, -1, 3)
        return GaussianImages(color, empty, empty, color if normals else None)
    stacked = [torch.stack(images) for images in zip(*views, strict=True)]
    return GaussianImages(stacked[0], stacked[1], stacked[2], stacked[3] if normals else None)


def _features(item: Gaussians, view: Camera, sh_degree: int | None, normals: bool) -> Tensor:
    """(n, 4 or 7): colour, depth, and the shortest axis times nothing else than its sign."""
    eye = view.positions[0].to(item.dtype)
    columns = [harmonic_colors(item.sh, item.means, eye, sh_degree), view.to_camera(item.means)[0, :, 2:]]
    if normals:
        columns.append(_shortest_axes(item, eye, view.forward[0].to(item.dtype) if view.orthographic else None))
    return torch.cat(columns, 1)


def _shortest_axes(item: Gaussians, eye: Tensor, forward: Tensor | None) -> Tensor:
    """(n, 3) unit vectors towards the camera; 0 where the two shortest scales are equal, and so no direction is the shortest."""
    sorted_scales, order = item.scales.detach().sort(1)
    axis = rotation_matrices(item.rotations).gather(2, order[:, None, :1].expand(-1, 3, 1))[:, :, 0]
    towards = eye - item.means.detach() if forward is None else -forward.expand_as(item.means)
    facing = torch.where((axis.detach() * towards).sum(1, keepdim=True) < 0, -1.0, 1.0)
    defined = sorted_scales[:, :1] < sorted_scales[:, 1:2]
    return torch.where(defined, axis * facing, 0)


def _image(image: Tensor, alpha: Tensor, background: Tensor) -> tuple[Tensor, ...]:
    covered = alpha > 0
    color = image[..., :3] + (1 - alpha)[..., None] * background
    depth = torch.where(covered, image[..., 3] / torch.where(covered, alpha, 1), torch.inf)
    if image.shape[-1] == 4:
        return color, alpha, depth
    total = image[..., 4:]
    length = total.square().sum(-1, keepdim=True)
    some = length > 0
    return color, alpha, depth, torch.where(some, total * torch.where(some, length, 1).rsqrt(), 0)


def _shown(where: str, splats: Gaussians, views: int, sample: Tensor | None) -> list[int]:
    """The object of each view."""
    if sample is not None:
        require_tensor(where, "sample", sample, (views,), (torch.int64, torch.int32))
        indices = sample.tolist()
        if any(not 0 <= i < splats.batch_size for i in indices):
            raise RangeError(f"{where}: sample must name some of the {splats.batch_size} objects; got {indices[:8]}.")
        return indices
    if splats.batch_size == 1:
        return [0] * views
    if splats.batch_size != views:
        raise ShapeError(f"{where}: for {splats.batch_size} objects in {views} views, say by sample=(v,) which object each view shows.")
    return list(range(views))


def _background(where: str, background: Float3 | Tensor, like: Tensor, views: int) -> Tensor:
    """(v, 3)."""
    color = background if isinstance(background, Tensor) else torch.tensor(background, dtype=like.dtype)
    if color.shape not in ((3,), (views, 3)):
        raise ShapeError(f"{where}: background must be three numbers, (3,), or ({views}, 3); got {describe(background)}.")
    color = color.to(like).expand(views, 3)
    if views:
        require_finite(where, "background", color.detach())
    return color
