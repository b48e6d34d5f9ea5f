"""DINOv2 and DINOv3 from a folder on this machine: condition tokens, and feature maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import CheckpointError, FileFormatError, MissingDependency, ShapeError

from .background import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["DINOv2Encoder", "DINOv3Encoder"]


class _PretrainedEncoder(nn.Module):
    """A vision transformer of the package transformers. Subclasses say which kinds they take."""

    _kinds: ClassVar[tuple[str, ...]]

    def __init__(self, folder: str | os.PathLike[str], size: int) -> None:
        super().__init__()
        where = type(self).__name__
        self.model = _load(where, Path(os.fspath(folder)), self._kinds)
        self.patch = int(self.model.config.patch_size)
        if require_int(where, "size", size, 1) % self.patch:
            raise ShapeError(f"{where}: size must be a multiple of the model's patch of {self.patch} pixels; got {size}.")
        self.size = size
        self.channels = int(self.model.config.hidden_size)
        self.special = 1 + int(getattr(self.model.config, "num_register_tokens", 0))
        self.requires_grad_(False)

    @property
    def image_size(self) -> int:
        """`size`, by its name in `ImageConditioner`."""
        return self.size

    @torch.no_grad()
    def tokens(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b m c"]:
        """Class token, registers and patches row by row, normed without gain and shift (eps 1e-5).

        Args:
            images: colours in [0, 1]; any side that is a multiple of `patch`.
        Raises:
            ShapeError, DtypeError: no such images.
        """
        return F.layer_norm(self._states(images).float(), (self.channels,), eps=1e-5).to(images.dtype)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v c h w"]:
        """Patch tokens of each picture as a map, before any norm: what `encode_images` wants."""
        require_tensor(type(self).__name__, "images", images, ("v", 3, self.size, self.size), FLOATS)
        side = self.size // self.patch
        return self._states(images)[:, self.special :].transpose(1, 2).unflatten(2, (side, side)).to(images.dtype)

    def _states(self, images: Tensor) -> Tensor:
        """Hidden states before the model's last norm."""
        where = type(self).__name__
        require_tensor(where, "images", images, ("b", 3, "s", "s"), FLOATS)
        height, width = images.shape[2:]
        if height != width or height % self.patch or not height:
            raise ShapeError(f"{where}: images must be squares of a multiple of {self.patch} pixels; got {height} × {width}.")
        if not len(images):  # which the package cannot
            return images.new_zeros(0, self.special + (height // self.patch) ** 2, self.channels)
        mean, std = (torch.tensor(t, dtype=images.dtype, device=images.device)[:, None, None] for t in (IMAGENET_MEAN, IMAGENET_STD))
        seen = ((images - mean) / std).to(next(self.model.parameters()).dtype)
        return self.model(pixel_values=seen, output_hidden_states=True).hidden_states[-1]


class DINOv2Encoder(_PretrainedEncoder):
    """DINOv2 with registers as TRELLIS and Direct3D-S2 read it: tokens before the last norm.

    Args:
        folder: of a `transformers` checkpoint on this machine, such as a copy of facebook/dinov2-with-registers-large. Nothing is
            downloaded, and only .safetensors files are read.
        size: side of the pictures; 518 gives 37 × 37 patches of 14 × 14 pixels.
    Attributes: patch (side of a patch in pixels), special (tokens before the patches), channels, size.
    Raises:
        MissingDependency: the package transformers is not installed.   FileNotFoundError: no such folder.   FileFormatError: no
        checkpoint.   CheckpointError: of another kind of model, or weights that are missing or left over.   ShapeError: a size that is
        no multiple of the model's patches.
    `tokens` gives conditions (b, 1 + registers + patches, c), normed; calling the module gives maps (v, c, h, w), not normed, as TRELLIS'
    texture encoder was trained on. Frozen.
    Source: DINOv2 ViT-L/14 with registers, `x_prenorm`; differences: none known. The released weights were not run here.
    """

    _kinds = ("dinov2_with_registers", "dinov2")

    def __init__(self, folder: str | os.PathLike[str], size: int = 518) -> None:
        super().__init__(folder, size)


class DINOv3Encoder(_PretrainedEncoder):
    """DINOv3 as TRELLIS.2 reads it: tokens before the last norm.

    Args:
        folder: of a `transformers` checkpoint on this machine, such as a copy of facebook/dinov3-vitl16-pretrain-lvd1689m. Nothing is
            downloaded, and only .safetensors files are read.
        size: side of the pictures by default; `tokens` takes others, as the cascade does (512 and 1024).
    Attributes, errors, and what comes out: as `DINOv2Encoder`. 512 pixels give 1 + 4 + 1024 tokens.
    Source: TRELLIS.2's image features; differences: none (checked on a small model with the original's code).
    """

    _kinds = ("dinov3_vit",)

    def __init__(self, folder: str | os.PathLike[str], size: int = 512) -> None:
        super().__init__(folder, size)


def _load(where: str, path: Path, kinds: tuple[str, ...]) -> Any:
    if not path.is_dir():
        raise FileNotFoundError(f"{where}: there is no folder {path}. Give that of a transformers checkpoint of {' or '.join(kinds)}.")
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingDependency(f"{where}: needs the package transformers; pip install 'voxgen[train]'.") from error
    try:
        kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
        if kind not in kinds:
            raise CheckpointError(f"{where}: {path} holds a {kind}; it must be {' or '.join(kinds)}.")
        model, info = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{where}: transformers cannot read {path}: {error}") from error
    wrong = {name: sorted(map(str, info.get(name) or ())) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        listing = "; ".join(f"{len(keys)} {name.replace('_', ' ')}, first {keys[0]}" for name, keys in wrong.items() if keys)
        raise CheckpointError(f"{where}: the weights in {path} do not fit its configuration: {listing}.")
    return model.eval()
