"""The released folder of TRELLIS: pipeline.json, which names pairs of files under ckpts/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxgen.core.checks import describe
from voxgen.core.errors import FileFormatError, VoxgenError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, RectifiedFlow, Sampler
from voxgen.models.checkpoints import read_trellis
from voxgen.models.checkpoints._source import config_path, read_config

from .folder_values import normalization_from_json

__all__ = ["read_released"]

PARTS = {
    "SparseStructureFlowModel": "structure_flow",
    "SparseStructureDecoder": "structure_decoder",
    "SLatFlowModel": "latent_flow",
    "SLatGaussianDecoder": "gaussian_decoder",
    "SLatMeshDecoder": "mesh_decoder",
}
"""Published classes, and what the pipeline calls them."""
UNUSED = ("SLatEncoder", "SparseStructureEncoder", "SLatRadianceFieldDecoder")
"""Published classes that may stand in a folder and that the pipeline has no use for."""
SAMPLERS = {"structure": "sparse_structure_sampler", "latent": "slat_sampler"}


def read_released(where: str, folder: Path, manifest: Mapping[str, Any], device: Any, dtype: torch.dtype | None) -> dict[str, Any]:
    """Arguments of a `TrellisPipeline`.

    Args:
        where: the caller, for messages.
        folder: the pipeline's.
        manifest: its pipeline.json.
        device, dtype: of the networks; None: the CPU, and the dtypes that the files say.
    Raises:
        FileFormatError: a pipeline.json of another kind, or a class that voxgen does not have.   FileNotFoundError: a file is missing.
        CheckpointError: weights that do not fit.
    Source: pipeline.json of microsoft/TRELLIS-image-large, as its users quote it; the file itself was not opened here.
    """
    place = folder / "pipeline.json"
    content = manifest.get("args")
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(models, dict):
        raise FileFormatError(f'{where}: {place} must have "args" with "models", as that of TRELLIS, or be written by save_folder.')
    found: dict[str, Any] = {}
    for name, relative in models.items():
        if not isinstance(relative, str) or Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise FileFormatError(f"{where}: {place} must name files in the folder for {name!r}; got {describe(relative)}.")
        kind = read_config(where, config_path(folder / relative))[0].removeprefix("Elastic")
        if kind in UNUSED:
            continue
        if kind not in PARTS:
            raise FileFormatError(f"{where}: voxgen does not have the class {kind!r} of {name!r}; it has {', '.join(PARTS)}.")
        if PARTS[kind] in found:
            raise FileFormatError(f"{where}: {place} names more than one {kind}; the second is {name!r}.")
        precision = {} if dtype is None else {"torso_dtype": dtype, "use_fp16": None}
        module: nn.Module = read_trellis(folder / relative, device=device, **precision)
        found[PARTS[kind]] = module.eval()
    missing = [kind for kind, part in PARTS.items() if part in ("structure_flow", "structure_decoder", "latent_flow") and part not in found]
    if missing:
        raise FileFormatError(f"{where}: {place} must name a {missing[0]}; it names {', '.join(models)}.")
    if "slat_normalization" not in content:
        raise FileFormatError(f"{where}: {place} must have slat_normalization, the statistics of the latents.")
    found["normalization"] = normalization_from_json(content["slat_normalization"])
    found["samplers"] = {stage: _sampler(where, place, content.get(key)) for stage, key in SAMPLERS.items()}
    return found


def _sampler(where: str, place: Path, published: Any) -> Sampler:
    """From class, constructor arguments and parameters of a published sampler. Its strength w is 1 + w here."""
    try:
        name, options = published["name"], published["params"]
        if name not in ("FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler"):
            raise FileFormatError(f"{where}: voxgen does not have the sampler {name!r} of {place}.")
        guidance = None
        if name != "FlowEulerSampler":
            guidance = ClassifierFreeGuidance(1 + options["cfg_strength"], tuple(options.get("cfg_interval", (0.0, 1.0))))
        path = RectifiedFlow(**published.get("args", {}))
        return EulerSampler(options["steps"], options.get("rescale_t", 1.0), flow=path, guidance=guidance)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{where}: the samplers in {place} must have name, args and params: {error!r}.") from error
    except VoxgenError as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{where}: the samplers in {place} cannot be built: {error}") from error
