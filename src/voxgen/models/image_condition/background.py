"""Removal of a background: what it is, by a network from a folder, and of one plain colour."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, FileFormatError, MissingDependency, RangeError, ShapeError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "BackgroundRemover", "PlainBackground", "RemoveBackground", "found_alpha"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RemoveBackground: TypeAlias = Callable[[UInt8[np.ndarray, "h w 3"]], Any]
"""Colours (h, w, 3) uint8 → alpha (h, w): uint8, bool, or floats in [0, 1], an array or a tensor."""


def found_alpha(where: str, colour: np.ndarray, remove: RemoveBackground) -> UInt8[np.ndarray, "h w"]:
    """What a remover finds, checked and in bytes."""
    alpha = remove(colour)
    if isinstance(alpha, Tensor):
        alpha = (alpha.float() if alpha.is_floating_point() else alpha).detach().cpu().numpy()
    if not isinstance(alpha, np.ndarray):
        raise DtypeError(f"{where}: remove_background must return an array or a tensor; it returned {describe(alpha)}.")
    if alpha.shape != colour.shape[:2]:
        raise ShapeError(f"{where}: remove_background must return alpha {colour.shape[:2]}; it returned {describe(alpha)}.")
    if alpha.dtype == np.bool_:
        return alpha.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(alpha.dtype, np.floating):
        if not (float(alpha.min()) >= 0 and float(alpha.max()) <= 1):
            raise RangeError(f"{where}: remove_background returned floats that are not all in [0, 1].")
        return np.rint(alpha.astype(np.float64) * 255).astype(np.uint8)
    if alpha.dtype != np.uint8:
        raise DtypeError(f"{where}: remove_background must return uint8, bool or floats; it returned {describe(alpha)}.")
    return alpha


class BackgroundRemover:
    """Alpha by a segmentation network of the BiRefNet family, as the published systems have it.

    Args:
        model: images (b, 3, s, s), less ImageNet's mean and over its deviation → logits (b, 1, s, s), or a list whose last they are.
        size: side s, to which a picture is squashed.
    Raises:
        RangeError: a size below 1.   ShapeError: a model that returns something else (when called).
    Source: the preprocessing of TRELLIS.2 and Direct3D-S2 (1024 pixels, last output, sigmoid, the mask resized to the picture);
        differences: none known. Not compared with the original's weights here.
    Example:
        >>> remover = BackgroundRemover.from_folder("birefnet", trust_code=True)                  # doctest: +SKIP
        >>> rgba = cut_out(PIL.Image.open("chair.jpg"), remove_background=remover)                # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, size: int = 1024) -> None:
        self.model = model.eval().requires_grad_(False)
        self.size = require_int("BackgroundRemover", "size", size, 1)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], *, trust_code: bool = False, size: int = 1024) -> BackgroundRemover:
        """From a `transformers` checkpoint on this machine, such as a copy of ZhengPeng7/BiRefNet. Nothing is downloaded.

        Args:
            folder: of the checkpoint.
            trust_code: such checkpoints bring Python files that build the network; True runs them. Read them first.
            size: see the class.
        Raises:
            MissingDependency: the package transformers is not installed.   FileNotFoundError: no such folder.
            FileFormatError: transformers cannot read it; also where it holds code and trust_code is False.
        """
        where = "BackgroundRemover.from_folder"
        path = Path(os.fspath(folder))
        if not path.is_dir():
            raise FileNotFoundError(f"{where}: there is no folder {path}. Give that of a transformers checkpoint of BiRefNet.")
        try:
            from transformers import AutoModelForImageSegmentation
        except ImportError as error:
            raise MissingDependency(f"{where}: needs the package transformers; pip install 'voxgen[train]'.") from error
        try:
            model = AutoModelForImageSegmentation.from_pretrained(path, local_files_only=True, trust_remote_code=trust_code)
        except (OSError, ValueError) as error:
            hint = "" if trust_code else " If the folder brings its own Python code, read it, and pass trust_code=True."
            raise FileFormatError(f"{where}: transformers cannot read {path}: {error}.{hint}") from error
        return cls(model, size)

    @torch.no_grad()
    def __call__(self, colour: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Colours → alpha."""
        from PIL import Image

        weight = next(self.model.parameters())
        side = self.size
        squashed = np.asarray(Image.fromarray(colour).resize((side, side), Image.Resampling.BILINEAR))
        image = torch.from_numpy(squashed.copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        found = self.model(((image - mean) / std)[None].to(weight))
        logits = found[-1] if isinstance(found, (list, tuple)) else getattr(found, "logits", found)
        if not isinstance(logits, Tensor) or logits.shape[-2:] != (side, side) or logits.numel() != side * side:
            raise ShapeError(f"BackgroundRemover: the model must give logits (1, 1, {side}, {side}); it gave {describe(logits)}.")
        mask = (logits.float().sigmoid().reshape(side, side).cpu() * 255).to(torch.uint8).numpy()
        return np.asarray(Image.fromarray(mask).resize((colour.shape[1], colour.shape[0])))


@dataclass(frozen=True)
class PlainBackground:
    """Alpha of an object before a background of one colour: all that is not joined to the border by pixels of that colour.

    Not part of any published system; for renders and cut-outs on white, where no network is at hand.

    Args:
        tolerance: largest difference of a channel, as a share of the full range, at which a pixel is still background.
    Raises:
        RangeError: a tolerance outside [0, 1); when called, a border that is not of one colour (less than 9 in 10 of its pixels).
    Example:
        >>> image = np.full((8, 8, 3), 255, dtype=np.uint8)
        >>> image[2:5, 3:6] = 10
        >>> int((PlainBackground()(image) > 0).sum())
        9
    """

    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise RangeError(f"PlainBackground: tolerance must lie in [0, 1); got {self.tolerance}.")

    def __call__(self, colour: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Colours → alpha, 0 or 255."""
        from scipy import ndimage

        edge = np.ones(colour.shape[:2], dtype=bool)
        edge[1:-1, 1:-1] = False
        plain = np.median(colour[edge], axis=0)
        near = np.abs(colour.astype(np.float32) - plain).max(2) <= self.tolerance * 255
        share = float(near[edge].mean())
        if share < 0.9:
            raise RangeError(
                f"PlainBackground: the border of the image must be of one colour; {share:.0%} of it is near {plain.astype(int).tolist()}. "
                f"Use an image with alpha, or BackgroundRemover."
            )
        areas = np.zeros(near.shape, dtype=np.int32)
        ndimage.label(near, output=areas)
        outside = np.isin(areas, np.unique(areas[edge & near]))
        return np.where(outside, 0, 255).astype(np.uint8)
