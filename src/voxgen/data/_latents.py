"""LatentStage: what a trained autoencoder makes of the records of the stages before."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor, TriMesh
from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError, VoxgenError
from voxgen.layers import DiagonalGaussian
from voxgen.models import SCVAE, SparseFlexVAE, SparseSDFVAE, StructureVAE, load_pretrained
from voxgen.models.sc_vae import MaterialContent
from voxgen.models.structure import DensePosterior

from ._batches import occupancy
from ._digest import tensors_digest
from ._sources import AssetInput
from ._stages import AssetRejected, StageFailed, require_cells

Posterior: TypeAlias = DiagonalGaussian | DensePosterior


@dataclass(frozen=True)
class _Way:
    """How one kind of autoencoder is used. `sized`: whether `resolution` must, may or cannot be given."""

    field: str
    source: str
    sized: Literal["must", "may", "no"]
    dense: bool
    encode: Callable[[Any, Any, AssetInput, int | None], Posterior]


def _encode_direct(vae: Any, record: Any, asset: AssetInput, resolution: int | None) -> Posterior:
    return vae.encode(record).posterior


def _encode_points(vae: SparseFlexVAE, record: Any, asset: AssetInput, resolution: int | None) -> Posterior:
    plain = TriMesh(asset.mesh.vertices, asset.mesh.faces, up=asset.mesh.up).to(record.device)
    return vae.encode(record, record.voxels(resolution, plain)).posterior


def _encode_structure(vae: StructureVAE, record: Any, asset: AssetInput, resolution: int | None) -> Posterior:
    posterior = vae.encode(occupancy(record, resolution or record.resolution[0]))
    scale = torch.tensor(vae.latents_scale, dtype=posterior.mean.dtype)
    return DensePosterior((posterior.mean - vae.latents_shift) * scale, posterior.logvar + 2 * scale.abs().log())


def _way(module: nn.Module) -> _Way:
    if isinstance(module, SCVAE):
        field = "material_latent" if isinstance(module.content, MaterialContent) else "shape_latent"
        return _Way(field, "ovoxel", "no", False, _encode_direct)
    if isinstance(module, SparseSDFVAE):
        return _Way("sdf_latent", "sdf", "no", False, _encode_direct)
    if isinstance(module, SparseFlexVAE):
        return _Way("flex_latent", "points", "must", False, _encode_points)
    if isinstance(module, StructureVAE):
        return _Way("structure_latent", "ovoxel", "may", True, _encode_structure)
    raise DtypeError(
        f"LatentStage: the autoencoder must be a SCVAE, SparseSDFVAE, SparseFlexVAE or StructureVAE; got {type(module).__name__}. "
        f"For others write a stage of your own (voxgen.data.Stage)."
    )


class LatentStage:
    """Latents of each asset: the mean of an autoencoder's posterior, as its `decode` takes it (not normalised).

    | autoencoder | reads | makes | default field |
    | --- | --- | --- | --- |
    | `SCVAE` of shapes | "ovoxel" | sparse | "shape_latent" |
    | `SCVAE` of materials | "ovoxel" with materials; the cells are those of the shape latent | sparse | "material_latent" |
    | `SparseSDFVAE` | "sdf" | sparse | "sdf_latent" |
    | `SparseFlexVAE` | "points"; `resolution` of the latent's grid | sparse | "flex_latent" |
    | `StructureVAE` | "ovoxel", pooled to `resolution` | (c, x, y, z) | "structure_latent" |

    Args:
        vae: a file of `save_pretrained`, which every worker reads (on a cluster it must be where all can read it), or a module, which
            is sent to them. It is copied, and works in evaluation mode.
        logvar: keep the log variance, too: the field then holds `DiagonalGaussian` (dense: `DensePosterior`).
        dtype: of the stored numbers.
        max_tokens: assets whose latent has more cells are rejected.
        resolution: see the table; for a structure, None takes the O-Voxel's.
        device: where it is encoded; with workers, all use it.
        source, field: names of the field to read and to make, where they are not those of the table.
    Raises:
        FileFormatError, FileNotFoundError: no such file of weights.   DtypeError: another network.   RangeError: settings that make no
        sense for it.
    Example:
        >>> stages = [OVoxelStage(64), LatentStage("shape.safetensors"), LatentStage("material.safetensors")]    # doctest: +SKIP
    """

    def __init__(
        self,
        vae: str | os.PathLike[str] | nn.Module,
        *,
        logvar: bool = False,
        dtype: Literal["float32", "float16"] = "float32",
        max_tokens: int | None = None,
        resolution: int | None = None,
        device: torch.device | str = "cpu",
        source: str | None = None,
        field: str | None = None,
    ) -> None:
        where = "LatentStage"
        require_choice(where, "dtype", dtype, ("float32", "float16"))
        for name, value in (("max_tokens", max_tokens), ("resolution", resolution)):
            if value is not None:
                require_int(where, name, value, 1)
        if not isinstance(vae, str | os.PathLike | nn.Module):
            raise DtypeError(f"{where}: vae must be a file of save_pretrained, or a module; got {describe(vae)}.")
        module = copy.deepcopy(vae) if isinstance(vae, nn.Module) else load_pretrained(vae)
        way = _way(module)
        if way.sized == "must" and resolution is None:
            raise RangeError(f"{where}: a {type(module).__name__} needs resolution, the cells a side of its latent; got None.")
        if way.sized == "no" and resolution is not None:
            raise RangeError(f"{where}: a {type(module).__name__} takes the resolution of its input; leave resolution out.")
        self.field, self.source = field or way.field, source or way.source
        self.logvar, self.dtype, self.max_tokens, self.resolution = logvar, dtype, max_tokens, resolution
        self.device = torch.device(device)
        self._path = None if isinstance(vae, nn.Module) else os.fspath(vae)
        self._dense, self._kind, self._digest = way.dense, type(module).__name__, _digest(module)
        self._module: nn.Module | None = self._placed(module)

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: ("dense" if self._dense else "sparse") + ("/posterior" if self.logvar else "")}

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.source,)

    def config(self) -> dict[str, Any]:
        """The weights by their checksum, wherever they came from."""
        names = ("field", "source", "logvar", "dtype", "max_tokens", "resolution")
        return {"stage": "latent", "vae": self._kind, "sha256": self._digest, **{name: getattr(self, name) for name in names}}

    @torch.no_grad()
    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        module = self._loaded()
        record = done[self.source].to(self.device)
        posterior = _way(module).encode(module, record, asset, self.resolution)
        dtype = getattr(torch, self.dtype)
        if isinstance(posterior, DensePosterior):
            self._require_finite(asset, posterior.mean, posterior.logvar)
            posterior = DensePosterior(posterior.mean.to(dtype), posterior.logvar.to(dtype))
            return {self.field: posterior if self.logvar else posterior.mean[0]}
        self._require_finite(asset, posterior.mean.feats, posterior.logvar)
        require_cells(asset.name, len(posterior.mean), self.max_tokens, f"tokens of {self.field}")
        mean = SparseTensor(posterior.mean.grid.to("cpu"), posterior.mean.feats.to("cpu", dtype))
        return {self.field: DiagonalGaussian(mean, posterior.logvar.to("cpu", dtype)) if self.logvar else mean}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"_module": None} if self._path is not None else {})

    def _loaded(self) -> nn.Module:
        """The network, read from its file in a process that does not have it yet."""
        if self._module is None:
            try:
                module = load_pretrained(self._path or "")
            except (VoxgenError, OSError) as error:
                raise StageFailed(f"LatentStage: {self._path} cannot be read any more: {error}") from error
            if _digest(module) != self._digest:
                raise StageFailed(f"LatentStage: {self._path} is not the file that the preparation began with.")
            self._module = self._placed(module)
        return self._module

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(self.device).eval().requires_grad_(False)

    def _require_finite(self, asset: AssetInput, *values: Tensor) -> None:
        if not all(bool(torch.isfinite(v).all()) for v in values):
            raise AssetRejected("latent", f"{asset.name}: the {self._kind} gave a {self.field} that is not finite.")


def _digest(module: nn.Module) -> str:
    """Of configuration and weights."""
    description = getattr(module, "description", dict)()
    return tensors_digest(json.dumps(description, sort_keys=True, default=str).encode(), module.state_dict())
