"""Direct3D-S2's folders as they are published: config.yaml, and checkpoints of several networks each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxgen.core.errors import DtypeError, FileFormatError, MissingDependency, RangeError, ShapeError
from voxgen.flow import Sampler
from voxgen.models._registry import build
from voxgen.models.checkpoints import load_direct3d_s2

from .parts import CELLS
from .release import SCHEDULES, scheduled_sampler

__all__ = ["CONFIG", "read_release"]

CONFIG = "config.yaml"
BANDS = {512: 2.0}
"""The release truncates distances at 1/128 of half the cube: 2 cells at 512. At 1024 these are the usual 4."""


@dataclass(frozen=True)
class _Network:
    """An entry of the configuration: the class that it must name, what voxgen builds for it, and the file of its weights.

    `omitted` has what the published constructor takes for fields that the file leaves out, where voxgen's recipe has something else.
    """

    published: str
    registered: str
    file: str
    omitted: Mapping[str, Any] = field(default_factory=dict)


_VAE, _DIT = ("SparseSDFVAE", "direct3d-s2/vae"), ("SparseDiT", "direct3d-s2/dit-512-v1.1")
_SSA = {"compression_block_size": 4, "selection_block_size": 8, "topk": 8, "compression_version": "v2"}
_COARSE = {
    "dense_vae": _Network("DenseShapeVAE", "direct3d-s2/dense-vae", "model_dense.ckpt", {"model_channels_decoder": (512, 128, 32)}),
    "dense_dit": _Network("DenseDiT", "direct3d-s2/dense-dit", "model_dense.ckpt"),
    "sparse_vae_512": _Network(*_VAE, "model_sparse_512.ckpt"),
    "sparse_dit_512": _Network(*_DIT, "model_sparse_512.ckpt", _SSA),
    "refiner": _Network("Voxel_RefinerXL", "direct3d-s2/refiner", "model_refiner.ckpt"),
}
_FINE = {
    "sparse_vae_1024": _Network(*_VAE, "model_sparse_1024.ckpt"),
    "sparse_dit_1024": _Network(*_DIT, "model_sparse_1024.ckpt", _SSA),
    "refiner_1024": _Network("Voxel_RefinerXL_sign", "direct3d-s2/refiner-1024", "model_refiner_1024.ckpt"),
}
_SCHEDULERS = {"structure": "dense_scheduler", "coarse": "sparse_scheduler_512", "fine": "sparse_scheduler_1024"}


def read_release(
    folder: Path, *, fine: bool = True, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """The arguments of `Direct3DS2Pipeline` that a folder gives as it is published.

    It holds config.yaml, model_dense.ckpt, model_sparse_512.ckpt, model_refiner.ckpt, and for the fine stage model_sparse_1024.ckpt and
    model_refiner_1024.ckpt. Every file is looked for before any is read. Classes in the configuration are looked up in a table; nothing
    that it names is imported.

    Args:
        folder: such as a copy of direct3d-s2-v-1-1.
        fine: read the fine stage too.
        device: where parameters are made; None is the CPU.
        dtype: of matrices and convolutions, in place of the half precision that the configuration asks for.
    Raises:
        FileNotFoundError: a file is missing.   MissingDependency: PyYAML is not installed.   FileFormatError: a configuration that is no
        YAML, lacks an entry, names another class, or has fields that make no network.   CheckpointError: weights that are not those of
        the network; nothing is left out.
    Source: names and layout of the releases 1.0 and 1.1 of DreamTechAI/Direct3D-S2.
    """
    where = "Direct3DS2Pipeline.from_folder"
    table = {**_COARSE, **(_FINE if fine else {})}
    for file in (CONFIG, *dict.fromkeys(entry.file for entry in table.values())):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{where}: {folder} must hold {file}; it does not. Give the whole folder of a release.")
    config = _configuration(where, folder / CONFIG)
    samplers = {stage: _sampler(where, config, name, stage) for stage, name in _SCHEDULERS.items() if fine or stage != "fine"}
    networks: dict[str, Any] = {name: _built(where, config, name, entry, dtype) for name, entry in table.items()}
    for name, entry in table.items():
        load_direct3d_s2(networks[name], folder / entry.file, device=device)
        networks[name].eval()
    sizes = ("512", "1024") if fine else ("512",)
    resolutions = {size: CELLS * networks[f"sparse_dit_{size}"].resolution for size in sizes}
    return {
        "structure_flow": networks["dense_dit"],
        "structure_vae": networks["dense_vae"],
        "flows": {resolutions[size]: networks[f"sparse_dit_{size}"] for size in sizes},
        "vaes": {resolutions[size]: networks[f"sparse_vae_{size}"] for size in sizes},
        "refiner": networks["refiner"],
        "sign_refiner": networks.get("refiner_1024"),
        "samplers": samplers,
        "bands": BANDS,
    }


def _configuration(where: str, path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependency(f"{where}: {path.name} needs the package PyYAML; pip install pyyaml.") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{where}: {path} is not YAML ({error}).") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{where}: {path} must be a mapping of entries; it holds {type(content).__name__}.")
    return content


def _entry(where: str, config: Mapping[str, Any], name: str, published: str) -> dict[str, Any]:
    """Parameters of an entry, whose class must be the published one."""
    entry = config.get(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("target"), str) or not isinstance(entry.get("params"), dict):
        raise FileFormatError(
            f"{where}: {CONFIG} must have an entry {name} with a target (a class) and params (its arguments); got {entry!r}."
        )
    found = entry["target"].rpartition(".")[2]
    if found != published:
        raise FileFormatError(f"{where}: {CONFIG} must have the class {published} as target of {name}; got {entry['target']!r}.")
    return entry["params"]


def _built(where: str, config: Mapping[str, Any], name: str, entry: _Network, dtype: torch.dtype | None) -> nn.Module:
    fields = {**entry.omitted, **_entry(where, config, name, entry.published)}
    if dtype is not None:
        fields = {**fields, "use_fp16": None, "torso_dtype": dtype}
    try:
        return build(entry.registered, device="meta", **fields)
    except (RangeError, DtypeError, ShapeError, TypeError) as error:
        raise FileFormatError(f"{where}: {name} in {CONFIG} makes no network: {error}") from error


def _sampler(where: str, config: Mapping[str, Any], name: str, stage: str) -> Sampler:
    fields = _entry(where, config, name, "FlowMatchEulerDiscreteScheduler")
    try:
        return scheduled_sampler(SCHEDULES[stage][0], fields["shift"], fields.get("num_train_timesteps", 1000))
    except (KeyError, TypeError, DtypeError, RangeError) as error:
        raise FileFormatError(f"{where}: {name} in {CONFIG} makes no schedule: {error}") from error
