"""TripoSF's file: the VAE's weights by their published names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from voxgen.core.errors import DtypeError
from voxgen.layers import PointCloudEncoder
from voxgen.models._registry import build
from voxgen.models.sparse_flex_vae import SparseFlexDecoder, SparseFlexEncoder, SparseFlexVAE

from ._described import exported, require_float
from ._published import flex_vae_name, links
from ._safetensors import write_safetensors
from ._source import Section, open_source
from ._strict import Link, Part, load_strictly

StateDict = Mapping[str, Tensor]

_PARTS: dict[type[nn.Module], str] = {
    SparseFlexVAE: "",
    PointCloudEncoder: "points.",
    SparseFlexEncoder: "encoder.",
    SparseFlexDecoder: "decoder.",
}
"""What our names of a module's tensors begin with in the whole autoencoder."""


def load_triposf(module: nn.Module, source: StateDict | str | Path, *, device: torch.device | str | None = None) -> None:
    """Load weights in TripoSF's published names into a module, strictly.

    Every tensor of the module must be there, in the right shape, and nothing may be left over. All is checked before anything
    is written. Files are mapped and read a tensor at a time.

    Args:
        module: a `SparseFlexVAE`; or its point encoder, encoder or decoder, for which the tensors of the other parts are not
            looked at.
        source: a state dict; or a path, .safetensors or a .pt or .ckpt file of tensors.
        device: where parameters on the meta device are made; None is the CPU. Others stay where they are.
    The module keeps its dtypes and norms: released weights under norm="per_voxel" are a start for fine-tuning, not the original's
    numbers. It never shares memory with the source.
    Raises:
        CheckpointError: names, shapes or dtypes do not agree; lists missing, left over and unfitting tensors, ten of each and
            how many.
        FileFormatError: a damaged file, or not a checkpoint.   FileNotFoundError: no such file.
        DtypeError: a module that is not of TripoSF, or a source that is neither a dict nor a path.
    Source: names and layouts of vae/pretrained_TripoSFVAE_256i1024o.safetensors of VAST-AI/TripoSF. Its convolutions of one cell
        (`skip_connection`) are read as the library it runs on reads them: the stored numbers as a matrix (ci, co).
    Example:
        >>> vae = build("triposf/vae", device="meta")
        >>> load_triposf(vae, "pretrained_TripoSFVAE_256i1024o.safetensors", device="cuda")              # doctest: +SKIP
    """
    where = "load_triposf"
    tensors = _links(where, module)
    with open_source(where, source) as opened:
        prefix = flex_vae_name(_PARTS[type(module)])
        load_strictly(where, [Part(module, tensors, Section(opened, prefix))], device)


def to_triposf(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a module under TripoSF's names and in its layout. Inverse of `load_triposf`.

    Args:
        module: as `load_triposf`.
        dtype: of all tensors; None keeps the module's. The released file has float32.
    Returns:
        Tensors without gradient; those that need no conversion share the module's memory.
    Raises:
        DtypeError: a module that is not of TripoSF, or a dtype that is not a float.
    """
    where = "to_triposf"
    return exported(where, module, _links(where, module), dtype)


def read_triposf(path: str | os.PathLike[str], *, device: torch.device | str | None = None, **overrides: Any) -> SparseFlexVAE:
    """Build the VAE in its released configuration and load a file into it.

    Args:
        path: as the source of `load_triposf`.
        device: where the parameters are made; None is the CPU.
        overrides: fields of `build("triposf/vae")` that differ, such as pruning=True or norm="per_voxel"; widths and depths
            for files of other sizes.
    Raises: as `load_triposf`; RangeError for fields that the network does not have.
    """
    module = cast(SparseFlexVAE, build("triposf/vae", device="meta", **overrides))
    load_triposf(module, Path(os.fspath(path)), device=device)
    return module


def save_triposf(
    module: SparseFlexVAE, path: str | os.PathLike[str], *, dtype: torch.dtype | None = torch.float32, overwrite: bool = True
) -> None:
    """Write a .safetensors file that TripoSF's own code loads, a tensor at a time; it appears whole or not at all.

    Args:
        module: the whole autoencoder.
        path: the file; its folder must exist.
        dtype: as in `to_triposf`.
        overwrite: False raises where the file exists.
    Raises:
        DtypeError: as `to_triposf`, or a part alone.   DeviceError: weights on the meta device.   OSError: as
        `core.atomic.atomic_write`.
    """
    where = "save_triposf"
    require_float(where, dtype)
    if not isinstance(module, SparseFlexVAE):
        raise DtypeError(f"{where}: the module must be a SparseFlexVAE; got {type(module).__name__}.")
    own = module.state_dict()
    by_name = {link.published: link for link in _links(where, module)}

    def convert(name: str, value: Tensor) -> Tensor:
        return by_name[name].export(value).to(dtype or value.dtype)

    write_safetensors(path, {name: own[link.own] for name, link in by_name.items()}, convert=convert, overwrite=overwrite)


def _links(where: str, module: nn.Module) -> list[Link]:
    if type(module) not in _PARTS:
        names = ", ".join(kind.__name__ for kind in _PARTS)
        raise DtypeError(f"{where}: the module must be one of TripoSF's ({names}); got {type(module).__name__}.")
    prefix = _PARTS[type(module)]
    return links(module, lambda own: flex_vae_name(prefix + own), "spconv", pointwise="skip_connection")
