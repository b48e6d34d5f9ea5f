"""SavedInFolder: `save_folder`, which all pipelines share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from voxgen.models._pretrained import require_saveable

from .folder import PipelineFolder, named_under, write_pipeline_folder

if TYPE_CHECKING:
    from .conditions import Conditioners

__all__ = ["SavedInFolder"]


class SavedInFolder(ABC):
    """Base of pipelines that can be written. They say in `_in_folder` what there is, but for the image encoder."""

    if TYPE_CHECKING:
        image_encoder: Conditioners

    @abstractmethod
    def _in_folder(self) -> PipelineFolder:
        """Kind, networks without the image encoder, and settings."""

    def save_folder(
        self, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, image_encoder: bool = True, overwrite: bool = True
    ) -> None:
        """Write pipeline.json and a .safetensors file for each network; all or none appear.

        Args:
            path: the folder; made where it does not exist (its parent must).
            dtype: in which weights are stored, such as torch.float16; None: as they are. See `save_pretrained`.
            image_encoder: write the image encoders too; False leaves out those that have files of their own (DINOv2, DINOv3).
            overwrite: False raises where a file of that name exists.
        Raises:
            DtypeError: an image encoder or a sampler that is not voxgen's own.   Others as
            `voxgen.models.pipelines.folder.write_pipeline_folder`.
        """
        encoders = _encoders(self.image_encoder) if image_encoder else {}
        for name, encoder in encoders.items():
            require_saveable(f"{type(self).__name__}.save_folder ({name})", encoder, dtype)
        own = self._in_folder()
        write_pipeline_folder(path, own.kind, {**own.networks, **encoders}, own.settings, dtype=dtype, overwrite=overwrite)


def _encoders(encoder: Any) -> dict[str, nn.Module]:
    """An image encoder, one by stage, or none, by the names that a folder has for them. `require_saveable` tells what is no network."""
    if isinstance(encoder, Mapping):
        return named_under("image_encoder", encoder)
    return {} if encoder is None else {"image_encoder": encoder}
