"""One file for a network of voxgen's: configuration and weights."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from voxgen._version import __version__
from voxgen.core.errors import DtypeError, FileFormatError, VoxgenError

from .checkpoints._safetensors import write_safetensors
from .checkpoints._source import open_safetensors
from .checkpoints._strict import Link, Part, load_strictly

_FORMAT = "1"

KINDS = {
    "sc-vae": "voxgen.models.sc_vae:SCVAE",
    "sc-vae/encoder": "voxgen.models.sc_vae:SCEncoder",
    "sc-vae/decoder": "voxgen.models.sc_vae:SCDecoder",
    "sparse-flex-vae": "voxgen.models.sparse_flex_vae:SparseFlexVAE",
    "sparse-sdf-vae": "voxgen.models.sparse_sdf_vae:SparseSDFVAE",
    "structure-decoder": "voxgen.models.structure:StructureDecoder",
    "structure-encoder": "voxgen.models.structure:StructureEncoder",
    "structure-flow": "voxgen.models.structure:StructureFlow",
    "structure-vae": "voxgen.models.structure:StructureVAE",
    "latent-flow": "voxgen.models.latent_flow:LatentFlow",
    "latent-flow/patched": "voxgen.models.latent_flow:PatchedLatentFlow",
    "texture-vae": "voxgen.models.texture_vae:TextureVAE",
    "ss-dit": "voxgen.models.direct3d_s2:SSDiT",
    "image-encoder/small": "voxgen.models.image_condition:SmallImageEncoder",
}
"""Classes that a file may hold, by the word that the file has for them."""


class Describable(Protocol):
    """What a class in `KINDS` offers: a description in plain values, and making a network from one."""

    def description(self) -> dict[str, Any]: ...

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> Any: ...


def save_pretrained(module: nn.Module, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write a network to one .safetensors file: weights under the names of its state dict, configuration in the metadata.

    The file appears whole or not at all, and is written a tensor at a time.

    Args:
        module: `SCEncoder`, `SCDecoder`, `SCVAE`, `SparseFlexVAE`, `SparseSDFVAE`, `SSDiT`, `LatentFlow`, `StructureFlow`, or
            another class that voxgen lists.
        path: the file; its folder must exist.
        overwrite: False raises where the file exists.
    Raises:
        DtypeError: a class that voxgen does not know how to build.   DeviceError: parameters on the meta device.
        OSError: as `core.atomic.atomic_write`.
    Example:
        >>> save_pretrained(vae, "vae.safetensors")
        >>> vae = load_pretrained("vae.safetensors", device="cpu")
    """
    kind = next((name for name, target in KINDS.items() if _resolve(target) is type(module)), None)
    if kind is None:
        raise DtypeError(f"save_pretrained: the module must be one of {', '.join(KINDS)}; got {type(module).__name__}.")
    metadata = {
        "format": "pt",  # what other readers of .safetensors files look for
        "voxgen.format": _FORMAT,
        "voxgen.version": __version__,
        "voxgen.kind": kind,
        "voxgen.config": json.dumps(cast(Describable, module).description()),
    }
    write_safetensors(path, module.state_dict(), metadata, overwrite=overwrite)


def load_pretrained(path: str | os.PathLike[str], *, device: torch.device | str | None = None) -> nn.Module:
    """Build the network that a file of `save_pretrained` describes, with its weights.

    The file is mapped, checked whole, and copied a tensor at a time, so a load holds the network once.

    Args:
        path: the file.
        device: where the parameters are made; None is the CPU.
    Returns:
        The module in training mode, in the dtypes of its configuration.
    Raises:
        FileFormatError: damaged, or not written by `save_pretrained`.   CheckpointError: weights that do not fit the
        configuration.   FileNotFoundError: no such file.
    """
    where = "load_pretrained"
    with open_safetensors(where, Path(os.fspath(path))) as source:
        module = _build(where, source.label, source.metadata())
        links = [Link(name, name) for name in module.state_dict()]
        load_strictly(where, [Part(module, links, source)], device)
    return module


def _build(where: str, label: str, metadata: Mapping[str, str]) -> nn.Module:
    version, kind = metadata.get("voxgen.format"), metadata.get("voxgen.kind", "")
    if version is None:
        raise FileFormatError(f"{where}: {label} was not written by save_pretrained. Published files: voxgen.models.checkpoints.")
    if version != _FORMAT:
        raise FileFormatError(f"{where}: {label} has format {version}; this voxgen reads format {_FORMAT}. Install a newer voxgen.")
    if kind not in KINDS:
        raise FileFormatError(f"{where}: {label} holds a {kind!r}; this voxgen has {', '.join(KINDS)}.")
    try:
        values = json.loads(metadata.get("voxgen.config", ""))
        with torch.device("meta"):
            return _resolve(KINDS[kind]).from_description(values)
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, VoxgenError) as error:
        raise FileFormatError(f"{where}: the configuration in {label} cannot be built: {error}") from error


def _resolve(target: str) -> Any:
    path, _, attribute = target.partition(":")
    return getattr(importlib.import_module(path), attribute)
