"""TRELLIS.2's released pipeline: its samplers, and its folder of pipeline.json and ckpts/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from voxgen.core.checks import describe
from voxgen.core.errors import FileFormatError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, RectifiedFlow, Sampler
from voxgen.models.checkpoints import read_trellis2
from voxgen.models.latent_flow import LatentFlow
from voxgen.models.pipelines.folder import read_manifest
from voxgen.models.pipelines.folder_values import normalization_from_json
from voxgen.models.sc_vae import MATERIAL_LATENTS, SHAPE_LATENTS, SCDecoder, SCEncoder
from voxgen.models.structure import StructureDecoder, StructureFlow

__all__ = ["read_release", "released_samplers"]

TEXTURING = "texturing_pipeline.json"
SAMPLERS = {"structure": "sparse_structure_sampler", "shape": "shape_slat_sampler", "material": "tex_slat_sampler"}
_FLOW = re.compile(r"(shape|tex)_slat_flow_model_(\d+)")
M = TypeVar("M", bound=nn.Module)


def released_samplers() -> dict[str, Sampler]:
    """The samplers of the released pipeline: "structure", "shape", "material"."""
    return {
        "structure": EulerSampler(12, 5.0, guidance=ClassifierFreeGuidance(7.5, (0.6, 1.0), 0.7)),
        "shape": EulerSampler(12, 3.0, guidance=ClassifierFreeGuidance(7.5, (0.6, 1.0), 0.5)),
        "material": EulerSampler(12, 3.0, guidance=ClassifierFreeGuidance(1.0, (0.6, 0.9))),
    }


def read_release(
    path: Path,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    structure_decoder: Path | None,
    texturing: bool,
) -> dict[str, Any]:
    """The arguments of `Trellis2Pipeline` that a downloaded copy of microsoft/TRELLIS.2-4B gives.

    Args:
        path: a folder with pipeline.json, and ckpts/ with a pair NAME.json, NAME.safetensors for each network it names.
        device, dtype: where parameters are made, and the dtype of the torsos in place of the files'.
        structure_decoder: NAME of the pair ss_dec_conv3d_16l8_fp16, which lies in another release, microsoft/TRELLIS-image-large. None:
            where pipeline.json says it is, or in ckpts/.
        texturing: read the shape encoder too, where the folder has it (texturing_pipeline.json).
    Raises:
        FileNotFoundError: a file that is not there.   FileFormatError: a pipeline.json that says something else.   CheckpointError: weights
        that do not fit what their JSON says.
    """
    where = "Trellis2Pipeline.from_folder"
    args = _args(where, path, read_manifest(where, path))
    models = _entry(where, path, args, "models")
    options: dict[str, Any] = {} if dtype is None else {"torso_dtype": dtype}

    def read(key: str, kind: type[M], names: Mapping[str, Any] = models, place: Path | None = None) -> M:
        if key not in names:
            raise FileFormatError(f"{where}: {path} names no network {key!r} in its pipeline; it names {', '.join(map(str, names))}.")
        module = read_trellis2(_pair(where, path, key, names[key]) if place is None else place, device=device, **options)
        if not isinstance(module, kind):
            raise FileFormatError(f"{where}: {key} must be a {kind.__name__}; {names[key]} is a {type(module).__name__}.")
        return module.eval()

    flows: dict[str, dict[int, LatentFlow]] = {"shape": {}, "tex": {}}
    for key in models:
        if match := _FLOW.fullmatch(str(key)):
            flows[match[1]][int(match[2])] = read(key, LatentFlow)
    found: dict[str, Any] = {
        "structure_flow": read("sparse_structure_flow_model", StructureFlow),
        "structure_decoder": read("sparse_structure_decoder", StructureDecoder, place=structure_decoder),
        "shape_flows": flows["shape"],
        "shape_decoder": read("shape_slat_decoder", SCDecoder),
        "material_flows": flows["tex"],
        "material_decoder": read("tex_slat_decoder", SCDecoder) if "tex_slat_decoder" in models else None,
        "shape_normalization": normalization_from_json(args.get("shape_slat_normalization")) or SHAPE_LATENTS,
        "material_normalization": normalization_from_json(args.get("tex_slat_normalization")) or MATERIAL_LATENTS,
        "samplers": {
            stage: _sampler(where, key, args[key]) if key in args else released_samplers()[stage] for stage, key in SAMPLERS.items()
        },
        "image_sizes": {resolution: resolution for resolution in {**flows["shape"], **flows["tex"]}},
        "up": "z",
    }
    if texturing and (path / TEXTURING).is_file():
        more = _entry(where, path, _args(where, path, read_manifest(where, path, TEXTURING)), "models")
        found["shape_encoder"] = read("shape_slat_encoder", SCEncoder, more)
        for key in more:
            match = _FLOW.fullmatch(str(key))
            if match and match[1] == "tex" and int(match[2]) not in flows["tex"]:
                flows["tex"][int(match[2])] = read(key, LatentFlow, more)
                found["image_sizes"][int(match[2])] = int(match[2])
    return found


def _args(where: str, path: Path, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    args = manifest.get("args")
    if not isinstance(args, Mapping):
        raise FileFormatError(f'{where}: {path} must have a pipeline with "name" and "args", as TRELLIS.2\'s or one that voxgen wrote.')
    return args


def _entry(where: str, path: Path, args: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entry = args.get(name)
    if not isinstance(entry, Mapping):
        raise FileFormatError(f"{where}: the pipeline in {path} must have an object {name!r}; got {describe(entry)}.")
    return entry


def _pair(where: str, folder: Path, key: str, name: Any) -> Path:
    """Where the two files of a network lie. A name that begins with another repository is looked for in this folder too."""
    if not isinstance(name, str):
        raise FileFormatError(f"{where}: {key} must be the name of a pair of files; got {describe(name)}.")
    places = [folder / name, folder / "ckpts" / Path(name).name]
    for place in places:
        if place.with_name(place.name + ".json").is_file() and place.with_name(place.name + ".safetensors").is_file():
            return place
    hint = ""
    if key == "sparse_structure_decoder":
        hint = " It is part of microsoft/TRELLIS-image-large: copy its two files there, or pass structure_decoder=, their path."
    raise FileNotFoundError(f"{where}: {places[0]}.json and .safetensors, the network {key!r}, are not there.{hint}")


def _sampler(where: str, key: str, values: Any) -> Sampler:
    try:
        if values["name"] != "FlowEulerGuidanceIntervalSampler":
            raise FileFormatError(f"{where}: {key} is a {values['name']!r}; voxgen reads FlowEulerGuidanceIntervalSampler.")
        own = values["params"]
        low, high = own["guidance_interval"]
        return EulerSampler(
            own["steps"],
            own["rescale_t"],
            flow=RectifiedFlow(values["args"]["sigma_min"]),
            guidance=ClassifierFreeGuidance(own["guidance_strength"], (low, high), own["guidance_rescale"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{where}: {key} must have a name, args and params as in the released file; {error!r}.") from error
