"""SparseFlexVAE: oriented points → latent → SparseFlex."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from voxgen.core import Selection, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.checks import describe, require_finite, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import PointCloudEncoder
from voxgen.models.sc_vae import Latent, LatentNormalization
from voxgen.models.sc_vae._tiles import children_of
from voxgen.ops.resample import Structure
from voxgen.representations import OrientedPoints

from .config import Norm, PointEncoderConfig
from .decoder import SparseFlexDecoder
from .encoder import SparseFlexEncoder
from .records import DecodedFlex

__all__ = ["SparseFlexVAE"]


class SparseFlexVAE(nn.Module):
    """The SparseFlex autoencoder of TripoSF, which Focusing trains: surface points → latent on their voxels → meshes of any topology.

    Args:
        points: makes a feature of each voxel from the points in it.
        encoder: see `SparseFlexEncoder`; its in_channels must be the width of these features.
        decoder: see `SparseFlexDecoder`; its latent_channels must be the encoder's.
        normalization: of the latents, for generators; None if there is none yet, as TripoSF.
    Parameters: points.*, encoder.*, decoder.*.
    Raises:
        ShapeError: parts that do not fit each other.
    Batch: several samples go through as one ragged batch; they do not influence each other. Empty samples are legal.
    Source: TripoSF (arXiv 2503.21732); Focusing. Differences: the mean of the posterior is the default (the release draws from it in
        inference too); any number of samples; a decode may take a part of a latent, follow a structure, or go tile by tile with
        each cell once.
    Example:
        >>> vae = voxgen.models.build("voxgen/sparse-flex-vae-small")
        >>> cloud = OrientedPoints.from_mesh(mesh, 5_000)
        >>> latent = vae.encode(cloud, cloud.voxels(16, mesh))
        >>> decoded = vae.decode(latent, prune=False)
        >>> decoded.features.grid.resolution, len(decoded.features) == 64 * len(latent.z)
        ((64, 64, 64), True)
        >>> half = vae.decode(latent, select=latent.z.grid.cells[:, 0] < 8, prune=False)   # decodes, and trains, a part
    """

    def __init__(
        self,
        points: PointCloudEncoder,
        encoder: SparseFlexEncoder,
        decoder: SparseFlexDecoder,
        normalization: LatentNormalization | None = None,
    ) -> None:
        super().__init__()
        where, channels = "SparseFlexVAE", encoder.config.latent_channels
        if points.fc_c.out_features != encoder.config.in_channels:
            raise ShapeError(
                f"{where}: the encoder's in_channels must be the width of a voxel's feature, {points.fc_c.out_features}; got "
                f"{encoder.config.in_channels}."
            )
        if decoder.config.latent_channels != channels:
            raise ShapeError(
                f"{where}: the decoder's latent_channels must be the encoder's, {channels}; got {decoder.config.latent_channels}."
            )
        if normalization is not None and normalization.channels != channels:
            raise ShapeError(f"{where}: the normalisation must have {channels} channels; it has {normalization.channels}.")
        self.points = points
        self.encoder = encoder
        self.decoder = decoder
        self.normalization = normalization

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        p, n = self.points, self.normalization
        points = PointEncoderConfig(
            p.fc_c.out_features,
            p.fc_c.in_features,
            len(p.blocks),
            p.use_normals,
            "triposf" if p.stray == "compat" else None,
            p.checkpoint,
        )
        return {
            "points": points.to_json(),
            "encoder": self.encoder.description(),
            "decoder": self.decoder.description(),
            "normalization": None if n is None else {"mean": n.mean, "std": n.std},
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SparseFlexVAE:
        """The inverse of `description`, with fresh weights."""
        points = PointEncoderConfig(**values["points"]).build()
        encoder = SparseFlexEncoder.from_description(values["encoder"])
        decoder = SparseFlexDecoder.from_description(values["decoder"])
        normalization = None if values["normalization"] is None else LatentNormalization(**values["normalization"])
        return cls(points, encoder, decoder, normalization)

    def encode(
        self, cloud: OrientedPoints, grid: VoxelGrid, *, sample: bool = False, generator: torch.Generator | None = None, factor: float = 1.0
    ) -> Latent:
        """Points → latent.

        Args:
            cloud: points and normals of b samples, on the encoder's device.
            grid: (n cells) of b samples: the voxels of the latent, which must hold every point: `cloud.voxels(resolution, mesh)`.
            sample: draw z from the posterior, as in training; otherwise z is its mean.
            generator: of the noise.
            factor: by which the position code multiplies cell indices: 256 / resolution brings grids of all resolutions to the
                released weights' scale.
        Raises:
            RangeError: NaN or infinity; points in no voxel; a generator without `sample`; a factor that is not positive.
            DtypeError, ShapeError, DeviceError: not points, or other samples than the grid's, or elsewhere.
        An empty grid has an empty latent.
        """
        where = "SparseFlexVAE.encode"
        if not isinstance(cloud, OrientedPoints):
            raise DtypeError(f"{where}: the input must be OrientedPoints; got {describe(cloud)}. From a mesh: OrientedPoints.from_mesh.")
        if generator is not None and not sample:
            raise RangeError(f"{where}: a generator has no effect without sample=True; leave it out.")
        features = self.points(cloud.points, cloud.normals if self.points.use_normals else None, cloud.offsets, grid)
        posterior = self.encoder(features, factor=factor)
        z = posterior.sample(generator) if sample else posterior.mode
        return Latent(z, posterior, (), self.normalization)

    def decode(
        self,
        latent: Latent | SparseTensor,
        *,
        select: Selection | Bool[Tensor, " n"] | None = None,
        structure: Sequence[Structure] | None = None,
        prune: bool | None = None,
        factor: float = 1.0,
        tile: int | None = None,
        progress: bool = False,
    ) -> DecodedFlex:
        """Latent → features of SparseFlex.

        Args:
            latent: what `encode` gave, or a latent (not normalised) on its grid.
            select: which cells of the latent are decoded: a Selection of its grid, as `carve_by_depth`, `adaptive_zoom` and
                `section_by_visibility` give (and their combinations), or (n,) bool. The rest does not exist for the decoder: the
                same as a latent that was built of these cells.
            structure: the children that stay, two `Structure`s, coarse → fine, of the whole latent; with `select` the parts under
                its cells are taken.
            prune, factor, tile, progress: see `SparseFlexDecoder.forward`.
        Raises:
            RangeError: a latent with NaN or infinity, a selection of another grid, and as `SparseFlexDecoder.forward`.
            DtypeError, ShapeError, DeviceError: not a latent, or a mask that does not fit.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none.
        """
        where = "SparseFlexVAE.decode"
        z = latent.z if isinstance(latent, Latent) else latent
        if not isinstance(z, SparseTensor):
            raise DtypeError(f"{where}: latent must be what encode gives, or a SparseTensor; got {describe(z)}.")
        require_finite(where, "latent", z.feats)
        if select is not None:
            z, structure = _selected(where, z, select, structure)
        return self.decoder(z, structure=structure, prune=prune, factor=factor, tile=tile, progress=progress)

    def decode_mesh(
        self,
        latent: Latent | SparseTensor,
        *,
        select: Selection | Bool[Tensor, " n"] | None = None,
        prune: bool | None = None,
        factor: float = 1.0,
        tile: int | None = None,
        progress: bool = False,
    ) -> tuple[TriMesh, ...]:
        """Latent → one mesh a sample, without gradients: `decode(...).flex.to_meshes()`. Arguments as `decode`."""
        with torch.no_grad():
            return self.decode(latent, select=select, prune=prune, factor=factor, tile=tile, progress=progress).flex.to_meshes()

    def forward(
        self,
        cloud: OrientedPoints,
        grid: VoxelGrid,
        *,
        select: Selection | Bool[Tensor, " n"] | None = None,
        structure: Sequence[Structure] | None = None,
        sample: bool = True,
        generator: torch.Generator | None = None,
        factor: float = 1.0,
    ) -> tuple[DecodedFlex, Latent]:
        """Encode and decode, what training needs: all children of the selected cells stay, or those of the structure.

        Targets of the logits are `occupied_children(logits.grid, cloud)`. To freeze the point encoder, as Focusing does:
        `vae.points.requires_grad_(False)`.
        """
        latent = self.encode(cloud, grid, sample=sample, generator=generator if sample else None, factor=factor)
        return self.decode(latent, select=select, structure=structure, prune=False, factor=factor), latent

    def with_norm(self, norm: Norm) -> SparseFlexVAE:
        """A copy with other norms in its decoder and the same weights: a way to fine-tune published ones on crops."""
        other = copy.deepcopy(self)
        weights = other.decoder.state_dict()
        other.decoder = SparseFlexDecoder(dataclasses.replace(self.decoder.config, norm=norm)).train(self.training)
        other.decoder.to(self.decoder.input_layer.weight.device).load_state_dict(weights)
        return other


def _selected(
    where: str, z: SparseTensor, select: Selection | Tensor, structure: Sequence[Structure] | None
) -> tuple[SparseTensor, tuple[Structure, ...] | None]:
    """The selected cells as a latent of their own, on a grid of their own, and the structures under them."""
    if not isinstance(select, Selection):
        require_tensor(where, "select", select, (len(z),), (torch.bool,), hint="A Selection, or one entry a cell of the latent.")
        select = Selection(z.grid, select)
    part, rows = select.apply(z), select.rows
    if structure is None:
        return part, None
    cells, local = part.grid, []
    for whole in structure:
        rows = children_of(whole, rows)
        local.append(Structure.between(cells, whole.children.select(rows)))
        cells = local[-1].children
    return part, tuple(local)
