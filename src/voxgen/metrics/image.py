"""How close images are: PSNR, SSIM, LPIPS, PSNR of normal maps. Plain torch, batched, differentiable, any device."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import FLOATS, describe, require_choice, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.losses import Perceptual, lpips_network
from voxgen.losses.ssim import WINDOW, structural_similarity

Images = Float[Tensor, "b c h w"]
Mask = Bool[Tensor, "b h w"]
PerImage = Float[Tensor, "b"]


def _require_pair(where: str, names: tuple[str, str], one: Tensor, other: Tensor, channels: int | str) -> tuple[Tensor, Tensor]:
    """Two image batches of one shape on one device, half types raised to float32."""
    for name, value in zip(names, (one, other), strict=True):
        require_tensor(where, name, value, ("b", channels, "h", "w"), FLOATS)
    if one.shape != other.shape:
        raise ShapeError(f"{where}: {names[0]} and {names[1]} must have one shape; got {describe(one)} and {describe(other)}.")
    require_same_device(where, **{names[0]: one, names[1]: other})
    dtype = torch.promote_types(torch.promote_types(one.dtype, other.dtype), torch.float32)
    return one.to(dtype), other.to(dtype)


def _require_mask(where: str, name: str, mask: Tensor, image: Tensor) -> Tensor:
    require_tensor(where, name, mask, (image.shape[0], image.shape[2], image.shape[3]), (torch.bool,))
    require_same_device(where, image=image, **{name: mask})
    return mask


def _require_range(where: str, data_range: float) -> None:
    if not 0 < data_range < float("inf"):
        raise RangeError(f"{where}: data_range must be positive and finite; got {data_range}.")


def psnr(image: Images, target: Images, *, data_range: float = 1.0, mask: Mask | None = None) -> PerImage:
    """Peak signal-to-noise ratio of each image: 10 log₁₀(data_range² / MSE), in decibels.

    Average over the result for the mean of a set; pooling the errors of a batch before the logarithm, as some published
    code does, gives a lower number.

    Args:
        image, target: (b, c, h, w) floats of equal shape.
        data_range: difference between the largest and the smallest value that a pixel can have: 1 for [0, 1].
        mask: (b, h, w) bool, the pixels that count; None counts all. The MSE is the mean over these pixels and all channels.
    Returns:
        (b,) float32, or float64 if an input is. +inf where the images are equal (the gradient there is not finite); NaN
        where the mask has no pixel. Differentiable in both images.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: data_range is not positive.
    Example:
        >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1))
        tensor([20.])
    """
    where = "psnr"
    _require_range(where, data_range)
    image, target = _require_pair(where, ("image", "target"), image, target, "c")
    if mask is not None:
        mask = _require_mask(where, "mask", mask, image)
    return 10 * torch.log10(data_range**2 / _mean_square(image - target, mask))


def _mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    """(b,) mean over channels and the pixels of the mask."""
    if mask is None:
        return difference.square().mean((1, 2, 3))
    total = torch.where(mask[:, None], difference, 0).square().sum((1, 2, 3))
    return total / (mask.sum((1, 2)) * difference.shape[1])


def ssim(image: Images, target: Images, *, data_range: float = 1.0, padding: Literal["valid", "zero"] = "valid") -> PerImage:
    """Structural similarity of each image.

    With means μ, variances σ² and covariance σ_xy under a Gaussian window of 11 × 11 pixels, σ = 1.5, weights summing to 1
    (biased estimates: no correction by the number of samples):
    SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)), C₁ = (0.01 data_range)²,
    C₂ = (0.03 data_range)², for each channel and window; the result is the mean over both.

    Args:
        image, target: (b, c, h, w) floats of equal shape.
        data_range: difference between the largest and the smallest value that a pixel can have: 1 for [0, 1].
        padding: "valid" takes the windows that lie inside the image, as the definition does: for evaluation.
            "zero" takes one window for each pixel, with zeros around the image, as the losses of TRELLIS, TRELLIS.2 and
            TripoSF do.
    Returns:
        (b,) float32, or float64 if an input is; 1 for equal images. Differentiable in both images.
    Raises:
        ShapeError: unequal shapes, or an image smaller than the window with "valid".   DtypeError, DeviceError: inputs that
        do not fit each other.   RangeError: data_range is not positive, or an unknown padding.
    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004. Differences:
        colour images are averaged over channels; the image is not reduced in size before.
    """
    where = "ssim"
    _require_range(where, data_range)
    require_choice(where, "padding", padding, ("valid", "zero"))
    image, target = _require_pair(where, ("image", "target"), image, target, "c")
    if padding == "valid" and min(image.shape[2:]) < WINDOW:
        raise ShapeError(f"{where}: images must be at least {WINDOW} × {WINDOW} pixels with padding='valid'; got {describe(image)}.")
    return structural_similarity(image, target, data_range, padding)


def lpips(
    image: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    *,
    network: Perceptual | None = None,
    mask: Mask | None = None,
) -> PerImage:
    """Learned perceptual distance of each image: 0 for equal ones, about 1 for unrelated ones.

    Args:
        image, target: (b, 3, h, w) floats in [0, 1], of equal shape.
        network: distance of pictures in [−1, 1], one number each, on the images' device; None loads
            `voxgen.losses.lpips_network("vgg")`, in each call: for many calls load it once. Say which one numbers were measured with.
        mask: (b, h, w) bool; elsewhere both images are set to zero (black).
    Returns:
        (b,) float32, or float64 if an input is. Differentiable in both images, if the network is.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other, or a network that gives not one float an image.
        MissingDependency: no network, and the package lpips or its weights are not there.
    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018.
    """
    where = "lpips"
    image, target = _require_pair(where, ("image", "target"), image, target, 3)
    if mask is not None:
        keep = _require_mask(where, "mask", mask, image)[:, None]
        image, target = torch.where(keep, image, 0), torch.where(keep, target, 0)
    if len(image) == 0:
        return image.new_zeros(0)
    network = lpips_network(device=image.device) if network is None else network
    distance = network(image * 2 - 1, target * 2 - 1)
    if not isinstance(distance, Tensor) or not distance.is_floating_point():
        raise DtypeError(f"{where}: network must return a float tensor; got {describe(distance)}.")
    if distance.numel() != len(image):
        raise ShapeError(f"{where}: network must return one number an image, {len(image)}; got {describe(distance)}.")
    return distance.reshape(len(image)).to(image)


def normal_psnr(
    normals: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    *,
    mask: Mask | None = None,
    target_mask: Mask | None = None,
    pixels: Literal["either", "both", "all"] = "either",
) -> PerImage:
    """PSNR of normal maps, in decibels: normals in [−1, 1] count as colours (n + 1) / 2 with data range 1.

    Args:
        normals, target: (b, 3, h, w) unit vectors, in one frame.
        mask, target_mask: (b, h, w) bool, where a surface is seen; None means everywhere. What lies outside of its mask is
            read as the zero vector (mid grey), whatever the map holds there.
        pixels: which ones enter the mean. "either": those where one of the two sees a surface, so that missing and
            additional surface costs, and empty background does not flatter. "both": those where both do, the error of
            the normals alone. "all": the whole image, as in publications that compare rendered pictures; the number then
            depends on how much of the image is background.
    Returns:
        (b,) float32, or float64 if an input is. +inf where the maps are equal, NaN where no pixel counts. Differentiable
        in both maps.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: an unknown `pixels`.
    """
    where = "normal_psnr"
    require_choice(where, "pixels", pixels, ("either", "both", "all"))
    normals, target = _require_pair(where, ("normals", "target"), normals, target, 3)
    everywhere = torch.ones(normals.shape[0], *normals.shape[2:], dtype=torch.bool, device=normals.device)
    seen = everywhere if mask is None else _require_mask(where, "mask", mask, normals)
    target_seen = everywhere if target_mask is None else _require_mask(where, "target_mask", target_mask, target)
    difference = torch.where(seen[:, None], normals, 0) - torch.where(target_seen[:, None], target, 0)
    counted = {"either": seen | target_seen, "both": seen & target_seen, "all": everywhere}[pixels]
    return -10 * torch.log10(_mean_square(difference / 2, counted))
