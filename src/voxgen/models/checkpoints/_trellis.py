"""TRELLIS' files: weights by their published names, and the JSON that says how to build the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.core.errors import DtypeError, FileFormatError
from voxgen.layers import GaussianHead
from voxgen.models.latent_flow import PatchedLatentFlow
from voxgen.models.slat import SLatEncoder, SLatGaussianDecoder, SLatMeshDecoder
from voxgen.models.structure import StructureDecoder, StructureEncoder, StructureFlow

from ._described import build_described, exported
from ._published import latent_flow_name, links, slat_name
from ._source import Completed, open_source
from ._strict import Link, Part, load_strictly

StateDict = Mapping[str, Tensor]

_CLASSES = {
    "SLatEncoder": "trellis/slat-encoder",
    "SLatGaussianDecoder": "trellis/gaussian-decoder",
    "SLatMeshDecoder": "trellis/mesh-decoder",
    "SLatFlowModel": "trellis/latent-flow",
    "SparseStructureEncoder": "trellis/structure-encoder",
    "SparseStructureDecoder": "trellis/structure-decoder",
    "SparseStructureFlowModel": "trellis/structure-flow",
}
_ELASTIC = "Elastic"
"""What the published configurations put before the names of classes that can free memory; they have the same tensors."""
_NAMES: dict[type[nn.Module], Callable[[str], str]] = {
    SLatEncoder: slat_name,
    SLatGaussianDecoder: slat_name,
    SLatMeshDecoder: slat_name,
    PatchedLatentFlow: latent_flow_name,
    StructureEncoder: str,
    StructureDecoder: str,
    StructureFlow: str,
}


def load_trellis(module: nn.Module, source: StateDict | str | Path, *, device: torch.device | str | None = None) -> None:
    """Load weights in TRELLIS' published names into a module, strictly.

    Every tensor of the module must be there, in the right shape, and nothing may be left over. All is checked before anything
    is written. The exceptions follow from the configuration, so a state dict may leave them out: the position code `pos_emb` of the
    structure flow, and `offset_perturbation` of the Gaussian decoder.

    Args:
        module: `SLatEncoder`, `SLatGaussianDecoder`, `SLatMeshDecoder`, `PatchedLatentFlow`, `StructureEncoder`,
            `StructureDecoder` or `StructureFlow`.
        source: a state dict; or a path: NAME.safetensors, or NAME or NAME.json of a published pair, or a .pt file of tensors.
        device: where parameters on the meta device are made; None is the CPU. Others stay where they are.
    The module keeps its dtypes and never shares memory with the source.
    Raises:
        CheckpointError: names, shapes or dtypes do not agree; lists missing, left over and unfitting tensors, ten of each and
            how many.
        FileFormatError: a damaged file, or not a checkpoint.   FileNotFoundError: no such file.
        DtypeError: a module that is not of TRELLIS, or a source that is neither a dict nor a path.
    Source: names and layouts of the files of microsoft/TRELLIS-image-large. Weights of convolutions of one cell are read as the
        original's library reads them: the stored numbers as a matrix (ci, co).
    Example:
        >>> decoder = build("trellis/gaussian-decoder", device="meta")
        >>> load_trellis(decoder, "ckpts/slat_dec_gs_swin8_B_64l8gs32_fp16", device="cuda")           # doctest: +SKIP
    """
    where = "load_trellis"
    tensors = _links(where, module)
    with open_source(where, source) as opened:
        load_strictly(where, [Part(module, tensors, Completed(opened, _derived(module)))], device)


def to_trellis(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a module under TRELLIS' names and in its layout. Inverse of `load_trellis`.

    Args:
        module: as `load_trellis`.
        dtype: of all tensors; None keeps the module's, which with use_fp16 are those of the published files.
    Returns:
        Tensors without gradient; those that need no conversion share the module's memory.
    Raises:
        DtypeError: a module that is not of TRELLIS, or a dtype that is not a float.
    """
    where = "to_trellis"
    return exported(where, module, _links(where, module), dtype)


def read_trellis(path: str | Path, *, device: torch.device | str | None = None, **overrides: Any) -> nn.Module:
    """Build the network that NAME.json describes and load NAME.safetensors into it.

    Args:
        path: NAME, NAME.json or NAME.safetensors.
        device: where the parameters are made; None is the CPU.
        overrides: fields that replace those of the file, such as use_fp16=False.
    Raises:
        FileFormatError: not such a pair, or a class that voxgen does not have.   CheckpointError: weights and configuration do
            not agree.   FileNotFoundError: no such file.   RangeError: fields that the network does not have.
    """
    where = "read_trellis"
    module = build_described(where, path, _registered, overrides)
    load_trellis(module, path, device=device)
    return module


def _registered(where: str, name: str) -> str:
    plain = name.removeprefix(_ELASTIC)
    if plain not in _CLASSES:
        raise FileFormatError(f"{where}: voxgen does not have the class {name!r}; it has {', '.join(_CLASSES)}.")
    return _CLASSES[plain]


def _links(where: str, module: nn.Module) -> list[Link]:
    if type(module) not in _NAMES:
        names = ", ".join(kind.__name__ for kind in _NAMES)
        raise DtypeError(f"{where}: the module must be one of TRELLIS' ({names}); got {type(module).__name__}.")
    pointwise = None if isinstance(module, PatchedLatentFlow) else "skip_connection"  # which there is a linear layer in the files too
    return links(module, _NAMES[type(module)], "spconv", pointwise=pointwise)


def _derived(module: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Tensors that follow from the configuration."""
    if isinstance(module, StructureFlow) and module.pe_mode == "ape":
        return {"pos_emb": module.position_code}
    if isinstance(module, SLatGaussianDecoder) and isinstance(module.out_layer, GaussianHead):
        return {"offset_perturbation": module.out_layer.starts}
    return {}
