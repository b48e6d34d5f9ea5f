"""Gaussians on the image: projection, blending from near to far, colours by direction.

All engines compute in float64 and round the result, so thresholds (a pixel's share below 1/255, a pixel that is full) are decided alike
on every engine, and a crop is what the full image has there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.checks import describe, require_finite, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops._registry import Backend, Call, Op, Reasons, cpu_only, module

from ._harmonics import Y0 as Y0
from ._harmonics import harmonic_colors as harmonic_colors
from ._harmonics import spherical_harmonics as spherical_harmonics
from ._preset import PRESETS as PRESETS
from ._preset import SplatPreset as SplatPreset
from ._projection import Spots as Spots
from ._projection import project as _project
from ._projection import rotation_matrices as rotation_matrices
from ._view import Crop as Crop
from ._view import View as View

__all__ = [
    "PRESETS",
    "Y0",
    "Crop",
    "SplatOutput",
    "SplatPreset",
    "Spots",
    "harmonic_colors",
    "project_gaussians",
    "rotation_matrices",
    "spherical_harmonics",
    "splat",
]

LARGEST = 1e30
"""Bound on positions and scales, so that no square of a square overflows."""


class SplatOutput(NamedTuple):
    """image: (v, h, w, c).   alpha: (v, h, w) in [0, 1), how much of the pixel is covered."""

    image: Tensor
    alpha: Tensor


def _fixed_camera(call: Call) -> Reasons:
    return ("has no gradient for cameras, and one requires it",) if call.facts["camera_grad"] else ()


def _as_gsplat(call: Call) -> Reasons:
    preset: SplatPreset = call.facts["preset"]
    own = preset.clamp == "border" and preset.margin == 0.15 and preset.compensation != "mip" and not preset.strict_stop
    reasons = () if own and preset.alpha_max == 0.999 else ("draws with the constants of the preset 'gsplat' only",)
    return reasons + (() if call.device.type == "cuda" else (f"runs on cuda, the tensors lie on {call.device}",))


OP = Op(
    "splat",
    (
        Backend("numba", "voxgen.ops.splat._numba:splat", (cpu_only, _fixed_camera)),
        Backend("gsplat", "voxgen.ops.splat._gsplat:splat", (_as_gsplat, _fixed_camera, module("gsplat", "gaussians"))),
        Backend("torch", "voxgen.ops.splat._torch:splat"),
        Backend("reference", "voxgen.ops.splat._reference:splat"),
    ),
)


def splat(
    means: Float[Tensor, "n 3"],
    rotations: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n c"] | Float[Tensor, "v n c"],
    camera: Camera,
    *,
    crop: Crop | None = None,
    preset: str | SplatPreset = "gsplat",
    antialiased: bool | None = None,
    background: Tensor | None = None,
    backend: str = "auto",
) -> SplatOutput:
    """Draw 3D Gaussians with any features by the affine approximation of their projection (EWA), blended from near to far.

    Args:
        means: (n, 3) centres, world units.
        rotations: (n, 4) quaternions [w, x, y, z], normalised inside.
        scales: (n, 3) standard deviations along the rotated axes, >= 0.
        opacities: (n,) in [0, 1].
        features: (n, c), or (v, n, c) where they depend on the view, such as colours by direction. Any c, also 0.
        camera: v views.
        crop: (x0, y0, w, h) draws only this part of the image; everything else is as in the full image, of which it is a part: bit for bit
            with numba and reference, to 1e-12 with torch (float32: to its last bit). None draws all.
        preset: "gsplat", "trellis", or constants of your own. Near and far are the camera's, unless the preset has its own.
        antialiased: None leaves the preset as it is; True and False switch the compensation of small Gaussians on and off.
        background: (c,), or (v, c); None is 0.
        backend: see docs/backends.md.
    Returns:
        SplatOutput in the dtype of means. Differentiable in all tensors; in cameras with the engines torch and reference.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other (all float32 or all float64).   RangeError: values that
        are not finite or beyond 1e30, negative scales, opacities outside [0, 1], a quaternion of length 0, an unknown preset, a crop
        without pixels or not inside the image, a camera with skew or that is not finite.
    No Gaussians, none in view, no views: the background. A Gaussian whose centre is nearer than `near` is dropped as a whole.
    Numerics: float64 inside, whatever the dtype, except gsplat (float32). The gradient through an alpha at its cap is 0, that of a clamped
        Jacobian exact (as in gsplat; the rasteriser of TRELLIS differs in both). No gradient is NaN: where a Gaussian has no area,
        or is not seen, its gradient is 0. Deterministic, except gsplat.
    Memory: numba, beside inputs and outputs: about 200 bytes a Gaussian, 24 bytes a pixel, and 12 bytes (with a gradient 60 + 8 c) for
        each tile of 16 × 16 pixels that a Gaussian touches. torch: 150 to 250 bytes for each pixel that a Gaussian touches.
    Source: Kerbl et al. 2023; gsplat 1.5.3 (Ye et al. 2024); mip-splatting (Yu et al. 2024). Differences: the crop;
        "trellis" has no cut at tiles of 16 pixels, which makes images depend on where a tile begins (by up to 0.02); orthographic
        cameras in both.
    Example:
        >>> camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=4, height=4)
        >>> one = torch.ones(1, 3)
        >>> splat(0 * one, torch.eye(4)[:1], 0.5 * one, torch.ones(1), one, camera).image.shape
        torch.Size([1, 4, 4, 3])
    """
    where = "splat"
    constants = resolve_preset(where, preset, antialiased)
    window = resolve_crop(where, camera, crop)
    views = len(camera)
    check_gaussians(where, means, rotations, scales, opacities)
    per_view = isinstance(features, Tensor) and features.ndim == 3
    shape = (views, len(means), "c") if per_view else (len(means), "c")
    require_tensor(where, "features", features, shape, (means.dtype,), hint="One set a view may be (v, n, c).")
    require_same_device(where, means=means, features=features, camera=camera.world_to_camera, background=background)
    require_finite(where, "features", features.detach().flatten(0, -2))
    channels = features.shape[-1]
    if background is not None:
        require_tensor(where, "background", background, (views, channels) if background.ndim == 2 else (channels,), (means.dtype,))
        background = background.expand(views, channels)
    camera_grad = camera.world_to_camera.requires_grad or camera.intrinsics.requires_grad
    tensors = (means, rotations, scales, opacities, features, camera.world_to_camera, camera.intrinsics)
    call = Call.of(*tensors, camera_grad=camera_grad and torch.is_grad_enabled(), preset=constants)
    engine = OP.choose(backend, call).load()
    wide = [t.double() for t in (means, rotations, scales, opacities)]
    images, alphas = [], []
    for i in range(views):
        own = (features[i] if per_view else features).double()
        image, alpha = engine(*wide, own, View.of(camera, i, window, constants))
        if background is not None:
            image = image + (1 - alpha)[..., None] * background[i].double()
        images.append(image.to(means.dtype))
        alphas.append(alpha.to(means.dtype))
    if not views:
        return SplatOutput(means.new_zeros(0, window[3], window[2], channels), means.new_zeros(0, window[3], window[2]))
    return SplatOutput(torch.stack(images), torch.stack(alphas))


def project_gaussians(
    means: Float[Tensor, "n 3"],
    rotations: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    camera: Camera,
    *,
    preset: str | SplatPreset = "gsplat",
    antialiased: bool | None = None,
) -> Spots:
    """Where Gaussians lie on the image of one view, how large they are there, and which can be seen at all.

    Args: as in `splat`; the camera has one view.
    Returns:
        Spots, float64. Differentiable.
    Raises: as `splat`; ShapeError unless the camera has one view.
    """
    where = "project_gaussians"
    constants = resolve_preset(where, preset, antialiased)
    check_gaussians(where, means, rotations, scales, opacities)
    if len(camera) != 1:
        raise ShapeError(f"{where}: the camera must have one view; it has {len(camera)}. Take one with camera[i].")
    require_same_device(where, means=means, camera=camera.world_to_camera)
    view = View.of(camera, 0, (0, 0, camera.width, camera.height), constants)
    return _project(means.double(), rotations.double(), scales.double(), opacities.double(), view)


def resolve_preset(where: str, preset: str | SplatPreset, antialiased: bool | None) -> SplatPreset:
    """The constants by name, with the compensation switched."""
    from dataclasses import replace

    if isinstance(preset, str):
        if preset not in PRESETS:
            raise RangeError(f"{where}: preset must be one of {', '.join(map(repr, PRESETS))}, or a SplatPreset; got {preset!r}.")
        preset = PRESETS[preset]
    elif not isinstance(preset, SplatPreset):
        raise DtypeError(f"{where}: preset must be a name or a SplatPreset; got {describe(preset)}.")
    if antialiased is None or antialiased == (preset.compensation != "none"):
        return preset
    return replace(preset, compensation="determinant" if antialiased else "none")


def resolve_crop(where: str, camera: Camera, crop: Crop | None) -> Crop:
    """The crop, checked; the whole image for None."""
    if not isinstance(camera, Camera):
        raise DtypeError(f"{where}: camera must be a Camera; got {describe(camera)}.")
    _check_camera(where, camera)
    if crop is None:
        return 0, 0, camera.width, camera.height
    if not isinstance(crop, (tuple, list)) or len(crop) != 4:
        raise ShapeError(f"{where}: crop must be (x0, y0, width, height) in pixels; got {describe(crop)}.")
    x0, y0, width, height = (require_int(where, f"crop[{i}]", v, -(2**31), 2**31) for i, v in enumerate(crop))
    if width < 1 or height < 1 or x0 < 0 or y0 < 0 or x0 + width > camera.width or y0 + height > camera.height:
        raise RangeError(
            f"{where}: crop (x0, y0, width, height) must have at least one pixel and lie inside the image of {camera.width} × "
            f"{camera.height} pixels; got {(x0, y0, width, height)}."
        )
    return x0, y0, width, height


def _check_camera(where: str, camera: Camera) -> None:
    """Raise RangeError unless poses are finite and intrinsics are those of `Camera`. Reads values."""
    k = camera.intrinsics.detach()
    plain = torch.zeros_like(k)
    for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)):
        plain[:, row, column] = k[:, row, column]
    plain[:, 2, 2] = 1
    focal = torch.stack((k[:, 0, 0], k[:, 1, 1]), 1)
    good = (k == plain).flatten(1).all(1) & torch.isfinite(k).flatten(1).all(1) & (focal > 0).all(1)
    good = good & torch.isfinite(camera.world_to_camera.detach()).flatten(1).all(1)
    if not bool(good.all()):
        view = int((~good).nonzero()[0])
        raise RangeError(
            f"{where}: a camera must have finite poses and intrinsics [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0; those of "
            f"view {view} are {k[view].tolist()} at {camera.world_to_camera[view].tolist()}."
        )


def check_gaussians(where: str, means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor) -> None:
    """Raise the errors that `splat` documents for these tensors. Reads values."""
    require_tensor(where, "means", means, ("n", 3), (torch.float32, torch.float64))
    n, dtype = len(means), (means.dtype,)
    require_tensor(where, "rotations", rotations, (n, 4), dtype)
    require_tensor(where, "scales", scales, (n, 3), dtype)
    require_tensor(where, "opacities", opacities, (n,), dtype)
    require_same_device(where, means=means, rotations=rotations, scales=scales, opacities=opacities)
    if n == 0:
        return
    for name, value in (("means", means), ("rotations", rotations), ("scales", scales)):
        require_finite(where, name, value.detach())
        if float(value.detach().abs().max()) > LARGEST:
            raise RangeError(f"{where}: {name} must not exceed {LARGEST:g}; the largest is {float(value.detach().abs().max()):.3g}.")
    require_finite(where, "opacities", opacities.detach())
    low, high = (float(v) for v in opacities.detach().aminmax())
    if low < 0 or high > 1:
        raise RangeError(f"{where}: opacities must lie in [0, 1]; got values from {low:.4g} to {high:.4g}. Logits? Use sigmoid.")
    if float(scales.detach().min()) < 0:
        raise RangeError(f"{where}: scales must not be negative; the least is {float(scales.detach().min()):.4g}. Logarithms? Use exp.")
    length = rotations.detach().double().norm(dim=1)
    if float(length.min()) < 1e-12:
        raise RangeError(f"{where}: rotations must be quaternions of positive length; row {int(length.argmin())} is 0.")
