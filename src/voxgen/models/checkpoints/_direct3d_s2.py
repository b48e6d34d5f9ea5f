"""Direct3D-S2's files: weights by their published names, several networks in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from voxgen.core.errors import DtypeError
from voxgen.models.direct3d_s2 import SDFRefiner, SignRefiner, SSDiT
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.models.structure import StructureFlow, StructureVAE

from ._described import exported
from ._published import links, sdf_vae_name
from ._source import Completed, open_source
from ._strict import Link, Part, load_strictly

StateDict = Mapping[str, Tensor]


def _sparse_name(own: str) -> str:
    """Our name of a tensor of a sparse network → the published one, where a convolution's weight is a kernel."""
    return own.replace(".conv.weight", ".conv.kernel")


_KINDS: dict[type[nn.Module], tuple[str, Callable[[str], str]]] = {
    StructureVAE: ("vae", str),
    StructureFlow: ("dit", str),
    SSDiT: ("dit", _sparse_name),
    SDFRefiner: ("refiner", str),
    SignRefiner: ("refiner", str),
    SparseSDFVAE: ("vae", sdf_vae_name),
}
"""For each network: its entry in a file, and the rule from our names of tensors to the published ones."""


def load_direct3d_s2(
    module: nn.Module, source: StateDict | Mapping[str, StateDict] | str | Path, *, device: torch.device | str | None = None
) -> None:
    """Load weights in Direct3D-S2's published names into a module, strictly.

    Every tensor of the module must be there, in the right shape, and nothing may be left over. All is checked before anything
    is written. The one exception is the position code `pos_emb` of the dense DiT, which follows from the configuration: a state
    dict may leave it out.

    Args:
        module: `StructureVAE`, `StructureFlow`, `SSDiT`, `SDFRefiner`, `SignRefiner` or `SparseSDFVAE`.
        source: a state dict; or a file (.ckpt, .pt, .pth of tensors, .safetensors). Where it holds several networks by the
            published entries "vae", "dit" and "refiner", the module's own is taken.
        device: where parameters on the meta device are made; None is the CPU. Others stay where they are.
    The module keeps its dtypes and never shares memory with the source.
    Raises:
        CheckpointError: names, shapes or dtypes do not agree; lists missing, left over and unfitting tensors, ten of each and
            how many.
        FileFormatError: a damaged file, or not a checkpoint.   FileNotFoundError: no such file.
        DtypeError: a module that is not of Direct3D-S2, or a source that is neither a dict nor a path.
    Source: names and layouts of the files of DreamTechAI/Direct3D-S2.
    Example:
        >>> refiner = build("direct3d-s2/refiner", device="meta")
        >>> load_direct3d_s2(refiner, "direct3d-s2-v-1-1/model_refiner.ckpt", device="cuda")          # doctest: +SKIP
    """
    where = "load_direct3d_s2"
    entry, tensors = _entry(where, module), _links(where, module)
    with open_source(where, source, entry=entry) as opened:
        derived = {"pos_emb": module.position_code} if isinstance(module, StructureFlow) and module.pe_mode == "ape" else {}
        load_strictly(where, [Part(module, tensors, Completed(opened, derived))], device)


def to_direct3d_s2(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a module under Direct3D-S2's names and in its layout. Inverse of `load_direct3d_s2`.

    Args:
        module: as `load_direct3d_s2`.
        dtype: of all tensors; None keeps the module's, which with use_fp16 are those of the published files.
    Returns:
        Tensors without gradient; those that need no conversion share the module's memory.
    Raises:
        DtypeError: a module that is not of Direct3D-S2, or a dtype that is not a float.
    """
    where = "to_direct3d_s2"
    return exported(where, module, _links(where, module), dtype)


def _links(where: str, module: nn.Module) -> list[Link]:
    return links(module, _kind(where, module)[1], "torchsparse")


def _entry(where: str, module: nn.Module) -> str:
    return _kind(where, module)[0]


def _kind(where: str, module: nn.Module) -> tuple[str, Callable[[str], str]]:
    if type(module) not in _KINDS:
        names = ", ".join(kind.__name__ for kind in _KINDS)
        raise DtypeError(f"{where}: the module must be one of Direct3D-S2's ({names}); got {type(module).__name__}.")
    return _KINDS[type(module)]
