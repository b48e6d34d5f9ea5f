"""From latents to surfaces, and from surfaces to the tokens of the next stage of Direct3D-S2."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from voxgen.core import Frame, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.models.direct3d_s2 import SDFRefiner, SignRefiner, crossed_field, decoded_repeats, signed_field
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.ops.grid_sets import parents
from voxgen.representations import SparseSDF

from .records import DecodedSurface

__all__ = ["decoded_surface", "tokens_of_meshes"]


def decoded_surface(
    where: str,
    latent: SparseTensor,
    vae: SparseSDFVAE,
    refiner: SDFRefiner | SignRefiner | None,
    level: float,
    band: float,
    *,
    released: bool,
    progress: bool,
) -> DecodedSurface:
    """Latent → SDF → refined SDF → meshes, a sample at a time, so that memory grows with one.

    Args:
        where: the caller, for messages.
        latent: as the decoder reads it.
        vae, refiner: of the stage.
        level: of the surface, in shares of the band.
        band: cells that a decoded value of 1 means.
        released: count repeated rows and fill missing cells with +1 as the release.
        progress: show bars.
    Warns:
        EmptyResultWarning: a surface is empty although its latent is not.
    """
    fields, meshes = [], []
    cells = float(torch.tensor(level * band, dtype=torch.float32))  # the same number in all comparisons
    for part in latent.unbind():
        found = _decoded(part, vae, refiner, cells, band, released, progress)
        # Where nothing says what a missing cell is, the surface ends there; the release takes it for outside.
        outside = band if released and refiner is None else None
        if len(part) and not len(found):
            warnings.warn(
                f"{where}: the refined field of a sample passes the level nowhere; its mesh is empty.", EmptyResultWarning, stacklevel=4
            )
        fields.append(found)
        meshes.append(found.to_mesh(cells, outside=outside, beyond_grid=False))
    if fields:
        return DecodedSurface(SparseSDF.batched(fields), tuple(meshes))
    return DecodedSurface(_decoded(latent, vae, None, cells, band, released, progress), ())


def _decoded(
    latent: SparseTensor,
    vae: SparseSDFVAE,
    refiner: SDFRefiner | SignRefiner | None,
    level: float,
    band: float,
    released: bool,
    progress: bool,
) -> SparseSDF:
    """Distances in cells of one sample; `level` in cells says which of a refined field are needed."""
    decoded = vae.decode(latent, features=isinstance(refiner, SDFRefiner), band=band, progress=progress)
    values = decoded.values
    if not len(values) or refiner is None:
        return decoded.sdf
    if isinstance(refiner, SDFRefiner):
        features = decoded.features
        rows = values.feats.new_zeros(0, refiner.feature_channels) if features is None else features.feats
        volume = refiner.refine(values, rows, progress=progress).float() * band
        near = crossed_field(volume, level, values.grid.frame)
        return SparseSDF(near.grid, near.feats, band)
    # The release decodes in chunks, and pools what two of them give for one cell as two cells.
    repeats = decoded_repeats(values.grid.cells, chunk=8 * vae.tile) if released and vae.tile is not None else None
    outside = refiner.outside(values, repeats=repeats, progress=progress)
    return SparseSDF.from_normalized(signed_field(values, outside), band)


def tokens_of_meshes(meshes: Sequence[TriMesh], resolution: int, factor: int, band: float, *, released: bool, progress: bool) -> VoxelGrid:
    """Cells of a grid `factor` times as coarse near the surface of each mesh, in the unit cube; an empty mesh has none.

    Args:
        meshes: one a sample; each is moved so that its bounding box takes 0.95 of the cube, or less where cells are large.
        resolution: at which distances are measured.
        factor: cells along a side of a token.
        band: cells nearer than this count.
        released: measure on nodes and as far as the release does.
        progress: show bars.
    """
    coords = [torch.empty(0, 4, dtype=torch.int32)]
    for sample, mesh in enumerate(meshes):
        if mesh.num_faces:
            if released:
                near = SparseSDF.from_mesh([mesh], resolution, compat="direct3d_s2", progress=progress)
            else:
                near = SparseSDF.from_mesh([mesh], resolution, band=band, sign="unsigned", progress=progress)
            cells = parents(near.grid, factor).coords.cpu().clone()
            cells[:, 0] = sample
            coords.append(cells)
    side = resolution // factor
    return VoxelGrid.from_sorted(torch.cat(coords), resolution=side, batch_size=len(meshes), frame=Frame.unit(side))
