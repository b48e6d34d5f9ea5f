"""From an image to what the flows are conditioned on: preparation, patches of the object, condition tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor
from torch.nn import functional as F

from voxgen.core.checks import FLOATS, describe, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError

__all__ = ["SparseCondition", "foreground_patches", "image_tokens", "prepare_image", "sparse_condition"]

SIZE = 518
BORDER = 16
SIDE = 37
"""Patches along a side of the prepared image: 518 / 14."""
SPECIAL = 5
"""Tokens before the patches: the class and four registers of DINOv2."""
SMALLEST_COVERAGE = 1e-3


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
    seen = rgba[..., 3] > 0
    if not seen.any():
        raise RangeError(f"{where}: alpha is 0 everywhere, so there is no object in the image.")
    if seen.mean() >= SMALLEST_COVERAGE:
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = rgba[..., 3:] / 255.0
    # The brackets matter: truncated to 8 bits, (x + 1) - a is one less than x + (1 - a) for many pixels.
    colour = ((rgba[..., :3] / 255.0 * alpha + (1 - alpha)) * 255).astype(np.uint8)
    mask = (alpha[..., 0] * 255).astype(np.uint8)
    side = max(mask.shape)
    before = [(side - n) // 2 for n in mask.shape]
    margins = [(b, side - n - b) for b, n in zip(before, mask.shape, strict=True)]
    colour, mask = _resize(_pad(colour, margins, 255), _pad(mask, margins, 0))
    border = [(BORDER, BORDER)] * 2
    colour, mask = _resize(_pad(colour, border, 255), _pad(mask, border, 0))
    return torch.from_numpy(np.concatenate([colour, mask[..., None]], 2)).permute(2, 0, 1).float() / 255


def foreground_patches(mask: Float[Tensor, "... 518 518"]) -> Bool[Tensor, "... 37 37"]:
    """Patches of 14 × 14 pixels that hold any of the object.

    Args:
        mask: (..., 518, 518) floats, more than 0 on the object.
    Raises:
        ShapeError, DtypeError: another size, or no floats.
    Source: Direct3D-S2's sparse conditioning; differences: none.
    Example:
        >>> int(foreground_patches(torch.ones(518, 518)).sum())
        1369
    """
    where = "foreground_patches"
    require_tensor(where, "mask", mask, None, FLOATS)
    if mask.shape[-2:] != (SIZE, SIZE):
        raise ShapeError(f"{where}: mask must be (..., {SIZE}, {SIZE}); got {tuple(mask.shape)}. Prepare the image with prepare_image().")
    cut = mask.unflatten(-1, (SIDE, SIZE // SIDE)).unflatten(-3, (SIDE, SIZE // SIDE))
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


def sparse_condition(tokens: Float[Tensor, "b 1374 c"], foreground: Bool[Tensor, "b 37 37"]) -> SparseCondition:
    """The special tokens and those of the patches that hold the object, row by row.

    Args:
        tokens: (b, 1374, c) floats, five special tokens and 37 × 37 patches, as `image_tokens` gives them.
        foreground: (b, 37, 37) bool, row by column, as `foreground_patches` gives them.
    Returns:
        Tokens and positions of each sample. Differentiable in tokens.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
    Source: Direct3D-S2, sparse conditioning of its v1.0 flows; differences: none.
    Example:
        >>> condition = sparse_condition(torch.zeros(1, 1374, 8), torch.eye(37, dtype=torch.bool)[None])
        >>> condition.tokens[0].shape, condition.positions[0][-1].tolist()
        (torch.Size([42, 8]), [36, 36, 0])
    """
    where = "sparse_condition"
    b = len(require_tensor(where, "tokens", tokens, ("b", SPECIAL + SIDE * SIDE, "c"), FLOATS))
    require_tensor(where, "foreground", foreground, (b, SIDE, SIDE), (torch.bool,))
    require_same_device(where, tokens=tokens, foreground=foreground)
    special = torch.tensor([[0, 0, 1]], dtype=torch.int32, device=tokens.device).expand(SPECIAL, 3)
    kept, positions = [], []
    for sample, mask in zip(tokens, foreground, strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        kept.append(torch.cat([sample[:SPECIAL], sample[SPECIAL + rows * SIDE + columns]]))
        patches = torch.stack([columns, rows, torch.zeros_like(rows)], 1).int()
        positions.append(torch.cat([special, patches]))
    return SparseCondition(kept, positions)


def _pad(image: np.ndarray, margins: list[tuple[int, int]], value: int) -> np.ndarray:
    return np.pad(image, margins + [(0, 0)] * (image.ndim - 2), constant_values=value)


def _resize(colour: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    size = (SIZE, SIZE)
    resized = Image.fromarray(colour).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
