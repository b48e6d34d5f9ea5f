"""Trellis2Pipeline from and to folders: voxgen's own layout, and the released one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from voxgen.core.errors import FileFormatError, RangeError
from voxgen.models.pipelines.folder import PipelineFolder, named_under, read_manifest, read_pipeline_folder
from voxgen.models.pipelines.folder_values import normalization_from_json, normalization_to_json, sampler_from_json, sampler_to_json

from .pipeline import Trellis2Pipeline
from .release import read_release

if TYPE_CHECKING:
    from voxgen.models.pipelines.conditions import Conditioners

__all__ = ["KIND", "in_folder", "read_pipeline"]

KIND = "trellis2"
_ONE = ("structure_flow", "structure_decoder", "shape_decoder", "material_decoder", "shape_encoder")


def read_pipeline(
    folder: Path,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    image_encoder: Conditioners,
    low_memory: bool,
    structure_decoder: Path | None,
    texturing: bool,
    verify: bool,
) -> Trellis2Pipeline:
    """See `Trellis2Pipeline.from_folder`."""
    where = "Trellis2Pipeline.from_folder"
    if low_memory and device is None:
        raise RangeError(f"{where}: low_memory needs a device, to which networks are moved while they are used.")
    home = "cpu" if low_memory else device
    if "voxgen.pipeline" in read_manifest(where, folder):
        found = read_pipeline_folder(folder, KIND, device=home, torso_dtype=dtype, verify=verify)
        fields = _fields(where, found)
    else:
        fields = read_release(folder, device=home, dtype=dtype, structure_decoder=structure_decoder, texturing=texturing)
    if image_encoder is not None:
        fields["image_encoder"] = image_encoder
    return Trellis2Pipeline(**fields, low_memory=low_memory, device=device)


def in_folder(pipeline: Trellis2Pipeline) -> PipelineFolder:
    """What `Trellis2Pipeline.save_folder` writes, but for the image encoder."""
    networks: dict[str, nn.Module] = {name: part for name in _ONE if (part := getattr(pipeline, name)) is not None}
    for name in ("shape_flows", "material_flows"):
        networks |= named_under(name, getattr(pipeline, name))
    sizes = pipeline.image_sizes
    settings = {
        "samplers": {stage: sampler_to_json(sampler) for stage, sampler in pipeline.samplers.items()},
        "structure_normalization": normalization_to_json(pipeline.structure_normalization),
        "shape_normalization": normalization_to_json(pipeline.shape_normalization),
        "material_normalization": normalization_to_json(pipeline.material_normalization),
        "materials": list(pipeline.materials),
        "image_sizes": None if sizes is None else {str(resolution): size for resolution, size in sizes.items()},
        "up": pipeline.up,
        "split_weights": pipeline.split_weights,
    }
    return PipelineFolder(KIND, networks, settings)


def _fields(where: str, found: PipelineFolder) -> dict[str, Any]:
    fields: dict[str, Any] = {name: found.networks[name] for name in _ONE if name in found.networks}
    fields["image_encoder"] = found.image_encoder()
    settings = found.settings
    try:
        for name in ("shape_flows", "material_flows"):
            fields[name] = found.by_resolution(name)
        sizes = settings["image_sizes"]
        fields |= {
            "samplers": {stage: sampler_from_json(values) for stage, values in settings["samplers"].items()},
            "structure_normalization": normalization_from_json(settings["structure_normalization"]),
            "shape_normalization": normalization_from_json(settings["shape_normalization"]),
            "material_normalization": normalization_from_json(settings["material_normalization"]),
            "materials": tuple(settings["materials"]),
            "image_sizes": None if sizes is None else {int(resolution): size for resolution, size in sizes.items()},
            "up": settings["up"],
            "split_weights": settings.get("split_weights", True),
        }
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{where}: the settings in pipeline.json are not those of this pipeline: {error!r}.") from error
    missing = [name for name in ("structure_flow", "structure_decoder", "shape_decoder") if name not in fields]
    if missing:
        raise FileFormatError(f"{where}: pipeline.json names no network {missing[0]!r}.")
    return fields
