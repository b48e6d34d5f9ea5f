"""TRELLIS.2's files: weights by their published names, and the JSON that says how to build the network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.core.atomic import atomic_write
from voxgen.core.checks import describe
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, RangeError
from voxgen.models._registry import build
from voxgen.models.latent_flow import LatentFlow
from voxgen.models.sc_vae import SCVAE, EncoderConfig, SCDecoder, SCEncoder
from voxgen.models.structure import StructureDecoder, StructureEncoder, StructureFlow

from ._described import build_described, exported
from ._flow_config import flow_config
from ._published import links, sc_vae_name
from ._safetensors import write_safetensors
from ._source import config_path, open_source, read_config, weights_path
from ._strict import HALF_MAX, Link, Part, largest, load_strictly

StateDict = Mapping[str, Tensor]
Place = StateDict | str | Path

_CLASSES = {
    "FlexiDualGridVaeEncoder": "trellis2/shape-encoder",
    "FlexiDualGridVaeDecoder": "trellis2/shape-decoder",
    "SparseUnetVaeEncoder": "trellis2/material-encoder",
    "SparseUnetVaeDecoder": "trellis2/material-decoder",
    "SLatFlowModel": "trellis2/shape-flow-512",
    "ElasticSLatFlowModel": "trellis2/shape-flow-512",
    "SparseStructureFlowModel": "trellis2/structure-flow",
    "SparseStructureEncoder": "trellis2/structure-encoder",
    "SparseStructureDecoder": "trellis2/structure-decoder",
}
_IMMATERIAL = ("torso_dtype", "resolution", "block_args", "checkpoint", "initialization")
"""Fields in which a module may differ from its file: precision, memory, and what computes nothing."""


def load_trellis2(module: nn.Module, source: Place | Mapping[str, Place], *, device: torch.device | str | None = None) -> None:
    """Load weights in TRELLIS.2's published names into a module, strictly.

    Every tensor of the module must be there, in the right shape, and nothing may be left over. All is checked before anything
    is written. Files are mapped and read a tensor at a time, so a load holds the module and one tensor.

    Args:
        module: `SCEncoder`, `SCDecoder`, `LatentFlow`, `StructureFlow`, `StructureEncoder` or `StructureDecoder`; or an `SCVAE`,
            whose source is then {"encoder": …, "decoder": …}.
        source: a state dict; or a path: NAME.safetensors, or NAME or NAME.json of a published pair, or a .pt file of tensors.
            Where NAME.json lies beside the weights, what it says of the network must be true of the module.
        device: where parameters on the meta device are made; None is the CPU. Others stay where they are.
    The module keeps its dtypes: the files' float16 is converted. The module never shares memory with the source.
    Raises:
        CheckpointError: names, shapes, dtypes or configuration do not agree; lists missing, left over and unfitting tensors,
            ten of each and how many.
        FileFormatError: a damaged file, or not a checkpoint.   FileNotFoundError: no such file.
        DtypeError: a module that is not of TRELLIS.2, or a source that is neither a dict nor a path.
    Source: names and layouts of the files of microsoft/TRELLIS.2-4B.
    Example:
        >>> with torch.device("meta"):
        ...     decoder = SCDecoder(config)
        >>> load_trellis2(decoder, "decoder.safetensors", device="cpu")
    """
    where = "load_trellis2"
    with ExitStack() as stack:
        parts = []
        for part, place in _parts(where, module, source):
            _compare_config(where, part, place)
            parts.append(Part(part, _links(where, part), stack.enter_context(open_source(where, place))))
        load_strictly(where, parts, device)


def to_trellis2(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of an encoder or decoder under TRELLIS.2's names and in its layout. Inverse of `load_trellis2`.

    Args:
        module: as `load_trellis2`, but for `SCVAE`.
        dtype: of all tensors (the released autoencoders are float16 throughout, the flows bfloat16); None keeps the module's.
    Returns:
        Tensors without gradient; those that need no conversion share the module's memory.
    Raises:
        DtypeError: a module that is not of TRELLIS.2, or a dtype that is not a float.
    """
    where = "to_trellis2"
    return exported(where, module, _links(where, module), dtype)


def read_trellis2(path: str | Path, *, device: torch.device | str | None = None, **overrides: Any) -> nn.Module:
    """Build the network that NAME.json describes and load NAME.safetensors into it.

    Args:
        path: NAME, NAME.json or NAME.safetensors.
        device: where the parameters are made; None is the CPU.
        overrides: fields that replace those of the file, such as use_fp16=False.
    Raises:
        FileFormatError: not such a pair, or a class that voxgen does not have.   CheckpointError: weights and configuration do
            not agree.   FileNotFoundError: no such file.   RangeError: fields that the network does not have.
    """
    where = "read_trellis2"
    module = build_described(where, path, _registered, overrides)
    with open_source(where, path) as opened:
        load_strictly(where, [Part(module, _links(where, module), opened)], device)
    return module


def save_trellis2(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = torch.float16,
    published_class: str | None = None,
    overwrite: bool = True,
) -> None:
    """Write a published pair, NAME.json and NAME.safetensors; the weights are written a tensor at a time and appear whole.

    Args:
        module: `SCEncoder`, `SCDecoder`, `LatentFlow` or `StructureFlow`.
        path: NAME, or either file of the pair; its folder must exist.
        dtype: as in `to_trellis2`; float16 is what the released files have.
        published_class: what NAME.json calls the network. None finds it, but for the encoder of shapes: it is the same network as
            that of materials, and "SparseUnetVaeEncoder" unless "FlexiDualGridVaeEncoder" is asked for.
        overwrite: False raises where a file exists.
    Raises:
        DtypeError: as `to_trellis2`.   RangeError: weights beyond float16, or a class that the module is not.
        DeviceError: weights on the meta device.   OSError: as `core.atomic.atomic_write`.
    """
    where = "save_trellis2"
    weights = weights_path(Path(os.fspath(path)))
    own = module.state_dict()
    by_name = {link.published: link for link in _links(where, module)}
    tensors = {name: own[link.own] for name, link in by_name.items()}
    if dtype == torch.float16:
        lost = [name for name, value in tensors.items() if value.dtype != dtype and not value.is_meta and largest(value) > HALF_MAX]
        if lost:
            raise RangeError(f"{where}: {len(lost)} tensors exceed float16, the first is {lost[0]}. Pass dtype=torch.float32.")
    name, args = published_config(module, published_class)

    def convert(name: str, value: Tensor) -> Tensor:
        return by_name[name].export(value).to(dtype or value.dtype)

    write_safetensors(weights, tensors, convert=convert, overwrite=overwrite)
    with atomic_write(config_path(weights), "w", overwrite=overwrite) as file:
        json.dump({"name": name, "args": args}, file, indent=4)


def published_config(module: nn.Module, published_class: str | None = None) -> tuple[str, dict[str, Any]]:
    """Class name and constructor arguments that TRELLIS.2 has for a module, in the order of its files."""
    where = "published_config"
    if isinstance(module, (LatentFlow, StructureFlow)):
        return flow_config(module, published_class)
    if not isinstance(module, (SCEncoder, SCDecoder)):
        raise DtypeError(f"{where}: the module must be one of TRELLIS.2's; got {type(module).__name__}.")
    config = module.config
    encodes = isinstance(config, EncoderConfig)
    shape = published_class == "FlexiDualGridVaeEncoder" if encodes else config.voxel_margin is not None
    name = f"{'FlexiDualGrid' if shape else 'SparseUnet'}Vae{'Encoder' if encodes else 'Decoder'}"
    if published_class not in (None, name):
        raise RangeError(f"{where}: this module is a {name}; got published_class={published_class!r}.")
    args: dict[str, Any] = {
        "model_channels": list(config.model_channels),
        "latent_channels": config.latent_channels,
        "num_blocks": list(config.num_blocks),
        "block_type": list(config.block_type),
        **({"down_block_type": list(config.down_block_type)} if encodes else {"up_block_type": list(config.up_block_type)}),
        "block_args": [_without_defaults(entry) for entry in config.args],
        "use_fp16": config.torso_dtype == "float16",
    }
    if encodes:
        if shape and config.in_channels != 6:
            raise RangeError(f"{where}: a FlexiDualGridVaeEncoder reads 6 channels; this module reads {config.in_channels}.")
        return name, args if shape else {"in_channels": config.in_channels, **args}
    if not shape:
        return name, {"out_channels": config.out_channels, **args, "pred_subdiv": config.pred_subdiv}
    if not config.pred_subdiv or config.out_channels != 7:
        raise RangeError(f"{where}: a FlexiDualGridVaeDecoder predicts subdivision and has 7 outputs; this module does not.")
    margin = {} if config.voxel_margin == 0.5 else {"voxel_margin": config.voxel_margin}
    return name, {"resolution": config.resolution or 256, **args, **margin}


def _without_defaults(entry: Any) -> dict[str, Any]:
    return {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if getattr(entry, f.name) != f.default}


def _parts(where: str, module: nn.Module, source: Any) -> list[tuple[nn.Module, Any]]:
    if not isinstance(module, SCVAE):
        return [(module, source)]
    if not isinstance(source, Mapping) or set(source) != {"encoder", "decoder"}:
        found = sorted(map(str, source))[:4] if isinstance(source, Mapping) else describe(source)
        raise DtypeError(f'{where}: the source of an SCVAE must be {{"encoder": …, "decoder": …}}; got {found}.')
    return [(module.encoder, source["encoder"]), (module.decoder, source["decoder"])]


def _links(where: str, module: nn.Module) -> list[Link]:
    if isinstance(module, (SCEncoder, SCDecoder)):
        return links(module, sc_vae_name, "trellis2")
    if isinstance(module, (LatentFlow, StructureFlow, StructureEncoder, StructureDecoder)):
        return links(module, str, "trellis2")
    raise DtypeError(f"{where}: the module must be one of TRELLIS.2's networks (see its docstring); got {type(module).__name__}.")


def _registered(where: str, name: str) -> str:
    if name not in _CLASSES:
        raise FileFormatError(f"{where}: voxgen does not have the class {name!r}; it has {', '.join(_CLASSES)}.")
    return _CLASSES[name]


def _compare_config(where: str, module: nn.Module, place: Any) -> None:
    """Raise CheckpointError if a JSON beside the weights describes another network. Shapes alone do not tell, say, the margin."""
    if isinstance(place, Mapping) or not isinstance(place, (str, Path)) or not config_path(place).is_file():
        return
    path = config_path(place)
    name, args = read_config(where, path)
    described = build(_registered(where, name), device="meta", **args)
    if type(described) is not type(module):
        raise CheckpointError(f"{where}: {path} describes {name}, and the module is a {type(module).__name__}.")
    if isinstance(module, (StructureEncoder, StructureDecoder)):
        return  # their shapes tell all
    theirs, ours = _compared(described), _compared(module)
    different = [f"{field}: {theirs[field]} in the file, {ours[field]} in the module" for field in ours if theirs[field] != ours[field]]
    if different:
        raise CheckpointError(f"{where}: {path} describes another network; nothing was loaded.\n  " + "\n  ".join(different))


def _compared(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, (SCEncoder, SCDecoder)):
        values = module.config.to_json()
    elif isinstance(module, (LatentFlow, StructureFlow)):
        values = module.description()
    else:
        raise DtypeError(f"load_trellis2: the module must be one of TRELLIS.2's; got {type(module).__name__}.")
    return {name: value for name, value in values.items() if name not in _IMMATERIAL}
