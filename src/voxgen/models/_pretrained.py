"""One file for a network of voxgen's: configuration and weights."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor, nn

from voxgen._version import __version__
from voxgen.core.atomic import atomic_write
from voxgen.core.errors import DtypeError, FileFormatError, RangeError, VoxgenError

from .checkpoints._described import require_float
from .checkpoints._safetensors import require_values, write_tensors
from .checkpoints._source import open_safetensors
from .checkpoints._strict import HALF_MAX, Link, Part, largest, load_strictly

_FORMAT = "1"

KINDS = {
    "sc-vae": "voxgen.models.sc_vae:SCVAE",
    "sc-vae/encoder": "voxgen.models.sc_vae:SCEncoder",
    "sc-vae/decoder": "voxgen.models.sc_vae:SCDecoder",
    "slat-encoder": "voxgen.models.slat:SLatEncoder",
    "slat-decoder/gaussians": "voxgen.models.slat:SLatGaussianDecoder",
    "slat-decoder/mesh": "voxgen.models.slat:SLatMeshDecoder",
    "sparse-flex-vae": "voxgen.models.sparse_flex_vae:SparseFlexVAE",
    "sparse-flex-vae/decoder": "voxgen.models.sparse_flex_vae:SparseFlexDecoder",
    "sparse-flex-vae/encoder": "voxgen.models.sparse_flex_vae:SparseFlexEncoder",
    "sparse-sdf-vae": "voxgen.models.sparse_sdf_vae:SparseSDFVAE",
    "structure-decoder": "voxgen.models.structure:StructureDecoder",
    "structure-encoder": "voxgen.models.structure:StructureEncoder",
    "structure-flow": "voxgen.models.structure:StructureFlow",
    "structure-vae": "voxgen.models.structure:StructureVAE",
    "latent-flow": "voxgen.models.latent_flow:LatentFlow",
    "latent-flow/patched": "voxgen.models.latent_flow:PatchedLatentFlow",
    "texture-vae": "voxgen.models.texture_vae:TextureVAE",
    "sdf-refiner": "voxgen.models.direct3d_s2:SDFRefiner",
    "sign-refiner": "voxgen.models.direct3d_s2:SignRefiner",
    "ss-dit": "voxgen.models.direct3d_s2:SSDiT",
    "image-encoder/small": "voxgen.models.image_condition:SmallImageEncoder",
}
"""Classes that a file may hold, by the word that the file has for them."""


class Describable(Protocol):
    """What a class in `KINDS` offers: a description in plain values, and making a network from one."""

    def description(self) -> dict[str, Any]: ...

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> Any: ...


def save_pretrained(module: nn.Module, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, overwrite: bool = True) -> None:
    """Write a network to one .safetensors file: weights under the names of its state dict, configuration in the metadata.

    The file appears whole or not at all, and is written a tensor at a time.

    Args:
        module: `SCEncoder`, `SCDecoder`, `SCVAE`, `SparseFlexVAE`, `SparseSDFVAE`, `SSDiT`, `LatentFlow`, `StructureFlow`, or
            another class that voxgen lists.
        path: the file; its folder must exist.
        dtype: in which floats are stored, such as torch.float16 for half the size; None: the module's own. The configuration stays:
            `load_pretrained` gives the module in its own dtypes again, with the values as they were rounded.
        overwrite: False raises where the file exists.
    Raises:
        DtypeError: a class that voxgen does not know how to build, or a dtype that is no float.   RangeError: weights beyond float16.
        DeviceError: parameters on the meta device.   OSError: as `core.atomic.atomic_write`.
    Example:
        >>> save_pretrained(vae, "vae.safetensors")
        >>> vae = load_pretrained("vae.safetensors", device="cpu")
    """
    require_saveable("save_pretrained", module, dtype)
    with atomic_write(path, overwrite=overwrite) as file:
        write_pretrained(file, module, dtype)


def require_saveable(where: str, module: nn.Module, dtype: torch.dtype | None = None) -> str:
    """The word that files have for the class of a module; raises as `save_pretrained`."""
    kind = next((name for name, target in KINDS.items() if _resolve(target) is type(module)), None)
    if kind is None:
        raise DtypeError(f"{where}: the module must be one of {', '.join(KINDS)}; got {type(module).__name__}.")
    require_float(where, dtype)
    state = module.state_dict()
    require_values(state)
    if dtype == torch.float16:
        lost = [name for name, value in state.items() if value.is_floating_point() and largest(value) > HALF_MAX]
        if lost:
            raise RangeError(f"{where}: {len(lost)} tensors exceed float16, the first is {lost[0]}. Pass dtype=None or torch.bfloat16.")
    return kind


def write_pretrained(file: IO[bytes], module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """What `save_pretrained` writes, into an open file."""
    metadata = {
        "format": "pt",  # what other readers of .safetensors files look for
        "voxgen.format": _FORMAT,
        "voxgen.version": __version__,
        "voxgen.kind": require_saveable("save_pretrained", module, dtype),
        "voxgen.config": json.dumps(cast(Describable, module).description()),
    }

    def stored(_: str, value: Tensor) -> Tensor:
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    write_tensors(file, module.state_dict(), metadata, convert=stored)


def load_pretrained(
    path: str | os.PathLike[str], *, device: torch.device | str | None = None, torso_dtype: torch.dtype | None = None
) -> nn.Module:
    """Build the network that a file of `save_pretrained` describes, with its weights.

    The file is mapped, checked whole, and copied a tensor at a time, so a load holds the network once.

    Args:
        path: the file.
        device: where the parameters are made; None is the CPU.
        torso_dtype: of the matrices and convolutions inside the blocks, in place of the configuration's: say float32 on a CPU for a
            network that was saved with float16. None keeps it. Networks whose configuration has no such dtype stay as they are.
    Returns:
        The module in training mode, in the dtypes of its configuration.
    Raises:
        FileFormatError: damaged, or not written by `save_pretrained`.   CheckpointError: weights that do not fit the
        configuration.   FileNotFoundError: no such file.
    """
    where = "load_pretrained"
    require_float(where, torso_dtype)
    with open_safetensors(where, Path(os.fspath(path))) as source:
        module = _build(where, source.label, source.metadata(), torso_dtype)
        links = [Link(name, name) for name in module.state_dict()]
        load_strictly(where, [Part(module, links, source)], device)
    return module


def _build(where: str, label: str, metadata: Mapping[str, str], torso_dtype: torch.dtype | None) -> nn.Module:
    version, kind = metadata.get("voxgen.format"), metadata.get("voxgen.kind", "")
    if version is None:
        raise FileFormatError(f"{where}: {label} was not written by save_pretrained. Published files: voxgen.models.checkpoints.")
    if version != _FORMAT:
        raise FileFormatError(f"{where}: {label} has format {version}; this voxgen reads format {_FORMAT}. Install a newer voxgen.")
    if kind not in KINDS:
        raise FileFormatError(f"{where}: {label} holds a {kind!r}; this voxgen has {', '.join(KINDS)}.")
    try:
        values = json.loads(metadata.get("voxgen.config", ""))
        if torso_dtype is not None:
            values = _with_torso(values, str(torso_dtype).removeprefix("torch."))
        with torch.device("meta"):
            return _resolve(KINDS[kind]).from_description(values)
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, VoxgenError) as error:
        raise FileFormatError(f"{where}: the configuration in {label} cannot be built: {error}") from error


def _with_torso(values: Any, word: str) -> Any:
    """The description with the torso dtype replaced wherever one is named: autoencoders have one in each half."""
    if isinstance(values, Mapping):
        return {key: word if key == "torso_dtype" else _with_torso(value, word) for key, value in values.items()}
    return [_with_torso(value, word) for value in values] if isinstance(values, list) else values


def _resolve(target: str) -> Any:
    path, _, attribute = target.partition(":")
    return getattr(importlib.import_module(path), attribute)
