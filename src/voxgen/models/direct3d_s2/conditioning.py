"""From an image to what the flows are conditioned on: preparation, patches of the object, condition tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor
from torch.nn import functional as F

from voxgen.core.checks import FLOATS, describe, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.models.image_condition.crops import white_square

__all__ = ["SparseCondition", "foreground_patches", "image_tokens", "prepare_image", "sparse_condition"]

PATCH = 14
"""Pixels along a side of a patch; the prepared image has 37."""
SPECIAL = 5
"""Tokens before the patches: the class and four registers of DINOv2."""


def prepare_image(rgba: UInt8[np.ndarray, "h w 4"]) -> Float[Tensor, "4 518 518"]:
    """Crop an image to its object, put it on white in the middle of a square, and scale it to 518 pixels.

    Args:
        rgba: (h, w, 4) uint8. Alpha tells the object from the background; remove the background first where it does not.
    Returns:
        (4, 518, 518) float32 from 0 to 1: red, green, blue on white, and the mask. The image encoder wants the first three less
        ImageNet's mean and over its standard deviation.
    Raises:
        DtypeError: not an array of uint8.   ShapeError: not (h, w, 4), or no pixels.   RangeError: alpha is 0 everywhere.
    Source: Direct3D-S2's preprocessing; differences: an image without an object raises.
    Numerics: resized twice, first to 518 and then with its border of 16 pixels; colours by Pillow's (antialiased) bilinear
        filter, in 8 bits each time, the mask by nearest. Colours on white are made in float64 and truncated to 8 bits.
    Example:
        >>> image = np.zeros((40, 60, 4), dtype=np.uint8)
        >>> image[10:30, 20:30] = 255
        >>> prepare_image(image).shape
        torch.Size([4, 518, 518])
    """
    where = "prepare_image"
    if not isinstance(rgba, np.ndarray) or rgba.dtype != np.uint8:
        raise DtypeError(f"{where}: rgba must be a uint8 array (h, w, 4); got {describe(rgba)}.")
    if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.size == 0:
        raise ShapeError(f"{where}: rgba must be (h, w, 4) with at least one pixel; got {rgba.shape}. Convert to RGBA first.")
    return white_square(where, rgba)


def foreground_patches(mask: Float[Tensor, "... h w"], *, patch: int = PATCH) -> Bool[Tensor, "... y x"]:
    """Patches of an image that hold any of the object.

    Args:
        mask: (..., h, w) floats, more than 0 on the object; (518, 518) as `prepare_image` gives it.
        patch: pixels along a side of a patch, of which the image's sides are multiples.
    Raises:
        ShapeError, DtypeError: another size, or no floats.   RangeError: a patch below 1.
    Source: Direct3D-S2's sparse conditioning; differences: patches of any size, for other encoders.
    Example:
        >>> int(foreground_patches(torch.ones(518, 518)).sum())
        1369
    """
    where = "foreground_patches"
    require_tensor(where, "mask", mask, None, FLOATS)
    size = require_int(where, "patch", patch, 1)
    if mask.ndim < 2 or any(side == 0 or side % size for side in mask.shape[-2:]):
        raise ShapeError(
            f"{where}: mask must be (..., h, w) with sides that are multiples of {size}; got {tuple(mask.shape)}. Prepare the image with "
            "prepare_image()."
        )
    cut = mask.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return (cut > 0).any(-1).any(-2)


def image_tokens(features: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """What DINOv2 makes of an image before its last norm, as the flows take it: a norm without gain and shift, eps 1e-5.

    Raises:
        ShapeError, DtypeError: not (b, n, c) floats.
    """
    require_tensor("image_tokens", "features", features, ("b", "n", "c"), FLOATS)
    return F.layer_norm(features, features.shape[-1:], eps=1e-5)


class SparseCondition(NamedTuple):
    """Condition tokens of a batch: those of the object, and where in the image they are.

    Attributes:
        tokens: one (m, c) tensor a sample.
        positions: one (m, 3) int32 tensor a sample: [column, row, 0] of a patch, [0, 0, 1] of the special tokens.
    """

    tokens: list[Float[Tensor, "m c"]]
    positions: list[Int32[Tensor, "m 3"]]

    def unconditional(self) -> SparseCondition:
        """Zeros at the same positions, for guidance."""
        return SparseCondition([torch.zeros_like(tokens) for tokens in self.tokens], self.positions)


def sparse_condition(tokens: Float[Tensor, "b n c"], foreground: Bool[Tensor, "b y x"], *, special: int = SPECIAL) -> SparseCondition:
    """The special tokens and those of the patches that hold the object, row by row.

    Args:
        tokens: (b, n, c) floats, the special tokens and then those of all patches, as `image_tokens` gives them.
        foreground: (b, y, x) bool, row by column, as `foreground_patches` gives them.
        special: tokens before the patches; n is their number plus y · x (1374 = 5 + 37 · 37 for DINOv2 with registers).
    Returns:
        Tokens and positions of each sample. Differentiable in tokens.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: a negative number of special tokens.
    Source: Direct3D-S2, sparse conditioning of its v1.0 flows; differences: patches and special tokens of other encoders.
    Example:
        >>> condition = sparse_condition(torch.zeros(1, 1374, 8), torch.eye(37, dtype=torch.bool)[None])
        >>> condition.tokens[0].shape, condition.positions[0][-1].tolist()
        (torch.Size([42, 8]), [36, 36, 0])
    """
    where = "sparse_condition"
    before = require_int(where, "special", special, 0)
    b, rows, columns = require_tensor(where, "foreground", foreground, ("b", "y", "x"), (torch.bool,)).shape
    hint = f"{before} special tokens and {rows} · {columns} patches."
    require_tensor(where, "tokens", tokens, (b, before + rows * columns, "c"), FLOATS, hint=hint)
    require_same_device(where, tokens=tokens, foreground=foreground)
    first = torch.tensor([[0, 0, 1]], dtype=torch.int32, device=tokens.device).expand(before, 3)
    kept, positions = [], []
    for sample, mask in zip(tokens, foreground, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        kept.append(torch.cat([sample[:before], sample[before + y * columns + x]]))
        positions.append(torch.cat([first, torch.stack([x, y, torch.zeros_like(y)], 1).int()]))
    return SparseCondition(kept, positions)
