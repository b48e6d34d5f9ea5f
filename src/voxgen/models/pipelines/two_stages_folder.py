"""Pipelines of two stages from and to folders."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from voxgen.core.errors import FileFormatError

from .folder import PipelineFolder, read_pipeline_folder
from .folder_values import normalization_from_json, normalization_to_json, sampler_from_json, sampler_to_json

if TYPE_CHECKING:
    from .conditions import Conditioners
    from .two_stages import TwoStagePipeline

__all__ = ["in_folder", "read_pipeline"]

P = TypeVar("P", bound="TwoStagePipeline")


def in_folder(pipeline: TwoStagePipeline) -> PipelineFolder:
    """What `TwoStagePipeline.save_folder` writes, but for the image encoder."""
    parts: dict[str, nn.Module] = {name: part for name in pipeline.networks if (part := getattr(pipeline, name)) is not None}
    settings = {
        "normalization": normalization_to_json(pipeline.normalization),
        "structure_normalization": normalization_to_json(pipeline.structure_normalization),
        "samplers": {stage: sampler_to_json(sampler) for stage, sampler in pipeline.samplers.items()},
        "options": {name: getattr(pipeline, name) for name in options_of(type(pipeline))},
    }
    return PipelineFolder(pipeline.kind, parts, settings)


def read_pipeline(
    cls: type[P],
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    image_encoder: Conditioners,
    verify: bool,
) -> P:
    """See `TwoStagePipeline.from_folder`."""
    where = f"{cls.__name__}.from_folder"
    read = read_pipeline_folder(path, cls.kind, device=device, torso_dtype=dtype, verify=verify)
    settings, parts = read.settings, read.networks
    try:
        normalization = normalization_from_json(settings["normalization"])
        if normalization is None:
            raise FileFormatError(f"{where}: {path} must have the normalisation of its latents; it has none.")
        options = dict(settings["options"])
        unknown = sorted(set(options) - set(options_of(cls)))
        if unknown:
            raise FileFormatError(f"{where}: {path} has options that this pipeline does not: {', '.join(unknown)}.")
        return cls(
            **{name: parts.get(name) for name in cls.networks},
            normalization=normalization,
            structure_normalization=normalization_from_json(settings["structure_normalization"]),
            samplers={stage: sampler_from_json(sampler) for stage, sampler in settings["samplers"].items()},
            image_encoder=read.image_encoder() if image_encoder is None else image_encoder,
            **options,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{where}: the settings in {path} make no {cls.__name__}: {error!r}.") from error


def options_of(cls: type[TwoStagePipeline]) -> list[str]:
    """Fields of plain values."""
    known = {*cls.networks, "normalization", "structure_normalization", "samplers", "image_encoder"}
    return [f.name for f in dataclasses.fields(cls) if f.name not in known]
