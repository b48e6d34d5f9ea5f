"""What a decoder should have given: a value for each of its cells, and the sets of cells that the loss averages over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.checks import require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.lookup import lookup_cells
from voxgen.representations import SparseSDF

__all__ = ["SDFTargets", "sdf_targets"]


@dataclass(frozen=True, eq=False)
class SDFTargets:
    """Targets of a decode, rows as its grid's.

    Attributes:
        values: (n, 1) true distances over the band, in [−1, 1].
        active: (n,) cells that the true SDF stores; the others are the decoder's extra ones.
        sharp: (n,) active cells near a sharp edge, or None.
    """

    values: Float[Tensor, "n 1"]
    active: Bool[Tensor, " n"]
    sharp: Bool[Tensor, " n"] | None


def sdf_targets(
    sdf: SparseSDF, grid: VoxelGrid, sharp: Bool[Tensor, " m"] | None = None, *, far: Literal["signed", "outside"] = "signed"
) -> SDFTargets:
    """The targets of decoded cells for `voxgen.losses.SparseSDFLoss`.

    Args:
        sdf: (m cells) the truth.
        grid: (n cells) of the decode, at the resolution of the SDF (cells beyond it, where that is not a multiple of 8, are far).
        sharp: (m,) cells of the SDF near sharp edges: `sdf.sharp_edge_cells(mesh)`.
        far: what extra cells should have: "signed", 1 outside and −1 inside; "outside", 1 everywhere, as the original was trained,
            which gives solids a second surface within (compat).
    Raises:
        RangeError: another batch size, a grid of other cells than the SDF's, an unknown word.   ShapeError, DtypeError, DeviceError:
        tensors that do not fit.
    Not differentiable. Empty grids are legal.
    Source: Direct3D-S2 (arXiv 2505.17412), loss of the SS-VAE; differences: the far field is signed.
    Example:
        >>> decoded = vae.decode(latent)                                  # latent = vae.encode(sdf)
        >>> targets = sdf_targets(sdf, decoded.values.grid)
        >>> int(targets.active.sum()) == len(sdf)
        True
    """
    where = "sdf_targets"
    require_choice(where, "far", far, ("signed", "outside"))
    require_same_device(where, sdf=sdf.coords, grid=grid.coords, sharp=sharp)
    if grid.batch_size != sdf.batch_size:
        raise RangeError(f"{where}: grid and sdf must have one batch size; got {grid.batch_size} and {sdf.batch_size}.")
    if any(not 0 <= n - m < 8 for n, m in zip(grid.resolution, sdf.resolution, strict=True)):
        raise RangeError(f"{where}: the grid must have the SDF's resolution {sdf.resolution}, or up to 7 more; got {grid.resolution}.")
    with torch.no_grad():
        rows = lookup_cells(sdf.grid, grid.coords).long()
        active = rows >= 0
        last = grid.coords.new_tensor(sdf.resolution) - 1
        inside = torch.cat([grid.coords[:, :1], torch.minimum(grid.cells, last)], 1)
        if far == "signed":
            values = sdf.sdf_at(inside) / sdf.band
            beyond = (grid.cells > last).any(1)
            values[beyond] = 1
        else:
            stored = (sdf.sdf_cells[rows.clamp_min(0)] / sdf.band).clamp(-1, 1) if len(sdf) else sdf.sdf_cells.new_ones(len(grid), 1)
            values = torch.where(active[:, None], stored, torch.ones_like(stored))
        near = None
        if sharp is not None:
            require_tensor(where, "sharp", sharp, (len(sdf),), (torch.bool,), hint="One entry a cell of the SDF.")
            near = active.clone()
            near[active] = sharp[rows[active]]
    return SDFTargets(values, active, near)
