"""Direct3DS2Pipeline from and to folders: voxgen's own layout, and the published one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from voxgen.core.errors import FileFormatError, RangeError
from voxgen.models.pipelines.folder import MANIFEST, PipelineFolder, named_under, read_pipeline_folder
from voxgen.models.pipelines.folder_values import normalization_from_json, normalization_to_json, sampler_from_json, sampler_to_json

from .pipeline import Direct3DS2Pipeline
from .published import CONFIG, read_release

if TYPE_CHECKING:
    from voxgen.models.pipelines.conditions import Conditioners

    from .stages import Compat

__all__ = ["KIND", "in_folder", "read_pipeline"]

KIND = "direct3d-s2"
_ONE = ("structure_flow", "structure_vae", "refiner", "sign_refiner")
_BY_RESOLUTION = ("flows", "vaes")
_PLAIN = ("image_system", "threshold", "compat")


def read_pipeline(
    folder: Path,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    image_encoder: Conditioners,
    compat: Compat | None,
    fine: bool,
    low_memory: bool,
    verify: bool,
) -> Direct3DS2Pipeline:
    """See `Direct3DS2Pipeline.from_folder`."""
    where = "Direct3DS2Pipeline.from_folder"
    if low_memory and device is None:
        raise RangeError(f"{where}: low_memory needs a device, to which networks are moved while they are used.")
    if not folder.is_dir():
        raise FileNotFoundError(f"{where}: there is no folder {folder}.")
    if not (folder / MANIFEST).is_file() and not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{where}: {folder} must hold {CONFIG} (a release) or {MANIFEST} (voxgen's own); it holds neither.")
    home = "cpu" if low_memory else device
    own = (folder / MANIFEST).is_file()
    fields = _read_own(where, folder, home, dtype, verify) if own else read_release(folder, fine=fine, device=home, dtype=dtype)
    given = {"image_encoder": image_encoder, "compat": compat}
    fields |= {name: value for name, value in given.items() if value is not None}
    return Direct3DS2Pipeline(**fields, low_memory=low_memory, device=device)


def in_folder(pipeline: Direct3DS2Pipeline) -> PipelineFolder:
    """What `Direct3DS2Pipeline.save_folder` writes, but for the image encoder."""
    networks: dict[str, nn.Module] = {name: part for name in _ONE if (part := getattr(pipeline, name)) is not None}
    for name in _BY_RESOLUTION:
        networks |= named_under(name, getattr(pipeline, name))
    settings = {
        "samplers": {stage: sampler_to_json(sampler) for stage, sampler in pipeline.samplers.items()},
        "levels": dict(pipeline.levels),
        "bands": {str(resolution): band for resolution, band in pipeline.bands.items()},
        "structure_normalization": normalization_to_json(pipeline.structure_normalization),
        **{name: getattr(pipeline, name) for name in _PLAIN},
    }
    return PipelineFolder(KIND, networks, settings)


def _read_own(where: str, folder: Path, device: torch.device | str | None, dtype: torch.dtype | None, verify: bool) -> dict[str, Any]:
    found = read_pipeline_folder(folder, KIND, device=device, torso_dtype=dtype, verify=verify)
    parts, settings = found.networks, found.settings
    fields: dict[str, Any] = {name: parts[name] for name in _ONE if name in parts}
    fields["image_encoder"] = found.image_encoder()
    try:
        for name in _BY_RESOLUTION:
            fields[name] = found.by_resolution(name)
        fields |= {
            "samplers": {stage: sampler_from_json(values) for stage, values in settings["samplers"].items()},
            "levels": dict(settings["levels"]),
            "bands": {int(resolution): band for resolution, band in settings["bands"].items()},
            "structure_normalization": normalization_from_json(settings["structure_normalization"]),
            **{name: settings[name] for name in _PLAIN},
        }
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise FileFormatError(f"{where}: the settings in {MANIFEST} are not those of this pipeline: {error!r}.") from error
    missing = [name for name in _ONE[:2] if name not in fields]
    if missing:
        raise FileFormatError(f"{where}: {MANIFEST} names no network {missing[0]!r}.")
    return fields
