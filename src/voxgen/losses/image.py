"""Terms on pictures: rendered masks, depths, normals, colours, material maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import describe, require_choice, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError

from ._reduce import mean, require_pair, single
from .ssim import similarity_map

Images: TypeAlias = Float[Tensor, "v c h w"]
"""A picture a view; masks and depths have one channel."""
ViewMask: TypeAlias = Bool[Tensor, "v h w"]
"""Which pixels of each view count."""
Perceptual: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Distance of (v, 3, h, w) pictures in [−1, 1], a number or more a view; `lpips.LPIPS(net="vgg")` is one."""
Over: TypeAlias = Literal["image", "mask"]
"""What a mean is taken over: all pixels, or those of the mask."""


def _masked(where: str, image: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    one, other = require_pair(where, ("image", "target"), image, target, ("v", "c", "h", "w"))
    if mask is None:
        return one, other
    require_tensor(where, "mask", mask, (len(one), *one.shape[2:]), (torch.bool,))
    require_same_device(where, image=one, mask=mask)
    keep = mask[:, None]
    return torch.where(keep, one, 0), torch.where(keep, other, 0)  # not a product: 0 · inf is NaN


def _mean(where: str, errors: Tensor, mask: Tensor | None, over: Over) -> Tensor:
    """Mean of errors (v, c, h, w), which are 0 outside of the mask."""
    require_choice(where, "over", over, get_args(Over))
    if over == "image" or mask is None:
        return mean(where, errors, None)
    return errors.sum() / (mask.sum() * errors.shape[1]).clamp(min=1)


def image_l1(image: Images, target: Images, *, mask: ViewMask | None = None, over: Over = "image") -> Float[Tensor, ""]:
    """Mean absolute difference over views, channels and pixels.

    Args:
        image, target: (v, c, h, w) floats of equal shape.
        mask: (v, h, w) bool; elsewhere both pictures are set to zero. What lies outside may be anything, infinite depths too.
        over: "image": pixels outside of the mask count in the mean with their difference of 0, as published, so the term does
            not grow where little is seen. "mask": the mean over the pixels of the mask in all views, for losses on the part of
            a view that carving covers, whose weight then does not depend on how large that part is.
    Returns:
        Scalar in float32 (float64 if an input is); 0 without views or pixels. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: an unknown word for `over`.
    Source: mask, depth and normal terms of TRELLIS, TRELLIS.2, TripoSF. Differences: `over`.
    """
    one, other = _masked("image_l1", image, target, mask)
    return _mean("image_l1", (one - other).abs(), mask, over)


def image_l2(image: Images, target: Images, *, mask: ViewMask | None = None, over: Over = "image") -> Float[Tensor, ""]:
    """Mean squared difference; otherwise as `image_l1`."""
    one, other = _masked("image_l2", image, target, mask)
    return _mean("image_l2", (one - other).square(), mask, over)


def image_smooth_l1(image: Images, target: Images, *, beta: float, mask: ViewMask | None = None, over: Over = "image") -> Float[Tensor, ""]:
    """Mean of d² / (2 β) where |d| < β, else |d| − β / 2; otherwise as `image_l1`.

    Args:
        beta: where the square turns into the line, in units of the pictures; TRELLIS and TripoSF take 1 / (2 resolution) for
            depths.
    Raises:
        RangeError: beta is not positive.
    """
    if not 0 < beta < float("inf"):
        raise RangeError(f"image_smooth_l1: beta must be positive and finite; got {beta}. For β = 0 use image_l1.")
    one, other = _masked("image_smooth_l1", image, target, mask)
    errors = torch.nn.functional.smooth_l1_loss(one, other, beta=beta, reduction="none")
    return _mean("image_smooth_l1", errors, mask, over)


def psnr_loss(
    image: Images, target: Images, *, mask: ViewMask | None = None, over: Over = "image", floor: float = 1e-8
) -> Float[Tensor, ""]:
    """Negative peak signal-to-noise ratio in decibels, 10 log₁₀(MSE + floor) with the MSE of all views together.

    For evaluation take `voxgen.metrics.psnr`, which gives a number a picture and knows no floor.

    Args:
        image, target: (v, c, h, w) floats of equal shape, in [0, 1].
        mask, over: as for `image_l1`; with over="mask" no more is compared than what the mask shows.
        floor: positive; keeps the logarithm and its gradient finite where the pictures are equal: the least is 10 log₁₀(floor).
    Returns:
        Scalar in float32 (float64 if an input is), the smaller the better; 0 without views or pixels. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: floor is not positive.
    """
    if not 0 < floor < float("inf"):
        raise RangeError(f"psnr_loss: floor must be positive and finite; got {floor}.")
    error = image_l2(image, target, mask=mask, over=over)
    return 10 * torch.log10(error + floor) if image.numel() else error


def ssim_loss(image: Images, target: Images, *, mask: ViewMask | None = None, over: Over = "image") -> Float[Tensor, ""]:
    """1 − SSIM, mean over views, channels and pixels: Gaussian window of 11 × 11 pixels, σ = 1.5, zeros around the picture.

    Zero padding is what the original losses have: it gives a window to each pixel, and pictures may be smaller than one.
    For evaluation take `voxgen.metrics.ssim`.

    Args:
        image, target: (v, c, h, w) floats in [0, 1], of equal shape.
        mask: (v, h, w) bool; elsewhere both pictures are set to zero.
        over: "image": the mean over the windows around all pixels, as published. "mask": around those of the mask.
    Returns:
        Scalar in float32 (float64 if an input is), also under autocast; 0 without views or pixels. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.
    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004; as a loss in
        TRELLIS, TRELLIS.2, TripoSF.
    """
    one, other = _masked("ssim_loss", image, target, mask)
    if one.numel() == 0:
        return (one - other).sum()
    errors = 1 - similarity_map(one, other, 1.0, "zero")
    if over == "mask" and mask is not None:  # windows around pixels outside of the mask may hold a part of it
        errors = torch.where(mask[:, None], errors, 0)
    return _mean("ssim_loss", errors, mask, over)


def perceptual_loss(image: Images, target: Images, network: Perceptual, *, mask: ViewMask | None = None) -> Float[Tensor, ""]:
    """Mean distance that a network sees between pictures; LPIPS with VGG features in the published losses.

    Args:
        image, target: (v, 3, h, w) floats in [0, 1], of equal shape. They are scaled to [−1, 1] for the network.
        network: see `Perceptual`. voxgen ships none; `lpips_network()` gives what the papers use. Others should be frozen
            (`requires_grad_(False)`). It must lie on the pictures' device.
        mask: (v, h, w) bool; elsewhere both pictures are set to zero before scaling.
    Returns:
        Scalar; 0 without views or pixels. Differentiable in both, if the network is.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other, or a network that gives no float tensor.
    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018.
    """
    where = "perceptual_loss"
    one, other = _masked(where, image, target, mask)
    require_tensor(where, "image", one, ("v", 3, "h", "w"))
    if one.numel() == 0:
        return (one - other).sum()
    distance = network(one * 2 - 1, other * 2 - 1)
    if not isinstance(distance, Tensor) or not distance.is_floating_point():
        raise DtypeError(f"{where}: network must return a float tensor; got {describe(distance)}.")
    return single(distance).mean()
