"""Which records of a prepared folder an autoencoder reads, and its latents of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.data import AssetInput, OVoxelStage, PointsStage, SDFStage, Stage
from voxgen.models import SCVAE, LatentNormalization, SparseFlexVAE, SparseSDFVAE, StructureVAE, TextureVAE, load_pretrained
from voxgen.models.sc_vae import MaterialContent
from voxgen.representations import OrientedPoints, OVoxel, SparseSDF

from . import oriented, views
from .latents import Latent
from .occupancy import occupied_by
from .ovoxels import bare, colored

SDF_BAND, SDF_FILL = 2.0, 0.9
"""As the example of the SS-VAE trains: cells on either side of the surface, and the share of the cube that an asset takes."""
VIEWS, VIEW_SIZE = 16, 256
"""Of an asset, for the texture VAE."""


@dataclass(frozen=True)
class Encoding:
    """How latents come about.

    Attributes:
        field: of a prepared folder, that is read.
        stage: makes that field.
        encode: record → latent of one object: the mean of the posterior, as the autoencoder decodes it.
        resolution: cells a side of the latents, where the record does not say it.
        normalization: of the latents, where the autoencoder's file has it.
    """

    field: str
    stage: Stage
    encode: Callable[[Any], Latent]
    resolution: int | None = None
    normalization: LatentNormalization | None = None


def encoding_of(vae: nn.Module, path: Path, resolution: int) -> Encoding:
    """Of an autoencoder, its file, and the cells a side that its data should have where they must be made."""
    vae.eval()
    if isinstance(vae, StructureVAE):
        return Encoding("ovoxel", OVoxelStage(resolution), functools.partial(_structure, vae))
    if isinstance(vae, SCVAE):
        read = colored if isinstance(vae.content, MaterialContent) else bare
        return Encoding("ovoxel", OVoxelStage(resolution), functools.partial(_ovoxel, vae, read), normalization=vae.normalization)
    if isinstance(vae, SparseSDFVAE):
        return Encoding("sdf", SDFStage(resolution, SDF_BAND, scale=SDF_FILL), functools.partial(_sdf, vae))
    if isinstance(vae, SparseFlexVAE):
        side = resolution // oriented.FACTOR
        return Encoding("points", PointsStage(), functools.partial(_points, vae, side), side)
    if isinstance(vae, TextureVAE):
        return Encoding("texture_latent", TextureLatentStage(str(path), resolution), lambda latent: latent)
    raise SystemExit(f"--vae: {path} holds a {type(vae).__name__}, for whose latents there is no flow here.")


def _structure(vae: StructureVAE, ovoxel: OVoxel) -> Tensor:
    """On the scale that `vae.decode` takes, which is that of flows."""
    return (vae.encode(occupied_by(ovoxel).dense()).mean[0] - vae.latents_shift) * vae.latents_scale


def _ovoxel(vae: SCVAE[Any], read: Callable[[OVoxel], OVoxel], ovoxel: OVoxel) -> SparseTensor:
    return vae.encode(read(ovoxel)).z


def _sdf(vae: SparseSDFVAE, sdf: SparseSDF) -> SparseTensor:
    return vae.encode(sdf.replace(sdf_cells=sdf.sdf_cells.float())).z


def _points(vae: SparseFlexVAE, resolution: int, cloud: OrientedPoints) -> SparseTensor:
    return vae.encode(cloud, cloud.voxels(resolution, skin=0.0)).z


@dataclass(frozen=True)
class TextureLatentStage:
    """Latents of a texture VAE, of pictures of each mesh that are not kept.

    Args:
        vae: its file.   resolution: of the finest cells.   count, size: of the pictures.   field: the name of the result.
    """

    vae: str
    resolution: int = 64
    count: int = VIEWS
    size: int = VIEW_SIZE
    field: str = "texture_latent"

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "sparse"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "texture-latent", "vae": self.vae, "resolution": self.resolution, "count": self.count, "size": self.size}

    @torch.no_grad()
    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        seen = views.convert(asset.mesh, self.resolution, size=self.size, count=self.count)
        return {self.field: _loaded(self.vae).encode(seen.features(), seen.geometry.feats).mean}


@functools.cache
def _loaded(path: str) -> TextureVAE:
    return cast(TextureVAE, load_pretrained(path).eval())
