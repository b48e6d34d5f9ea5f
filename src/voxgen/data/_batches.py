"""Items of a dataset as one batch, and cells as a dense cube."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import DiagonalGaussian
from voxgen.models.structure import DensePosterior
from voxgen.representations import OVoxel, SparseSDF


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of a `ShardDataset` → one batch: `collate_fn` of a `DataLoader`.

    Args:
        items: with the same keys.
    Returns:
        For each key one value: records with a `batched` (O-Voxels, SDFs, points, sparse latents) as one ragged batch, tensors stacked,
        everything else (names, pictures) as a tuple.
    Raises:
        ShapeError: no items, or different keys; records that do not go together, as their `batched` says.
    """
    if not items:
        raise ShapeError("collate: at least one item is needed; got none.")
    keys = items[0].keys()
    if any(item.keys() != keys for item in items):
        raise ShapeError(f"collate: all items must have the keys {sorted(keys)}; got {sorted({k for i in items for k in i})}.")
    return {key: _joined([item[key] for item in items]) for key in keys}


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.stack(values)
    if isinstance(first, DiagonalGaussian):
        return DiagonalGaussian(SparseTensor.batched([v.mean for v in values]), torch.cat([v.logvar for v in values]))
    if isinstance(first, DensePosterior):
        return DensePosterior(torch.cat([v.mean for v in values]), torch.cat([v.logvar for v in values]))
    return type(first).batched(values) if hasattr(type(first), "batched") else tuple(values)


def occupancy(cells: OVoxel | SparseSDF | SparseTensor | VoxelGrid, resolution: int) -> Bool[Tensor, "b 1 x y z"]:
    """Which cells of a coarser cube hold cells: what a `StructureVAE` encodes.

    Args:
        cells: any record on a cubic grid. Of a sparse SDF these are the cells of the band, not only those at the surface.
        resolution: cells a side of the result; must divide the grid's.
    Returns:
        (b, 1, r, r, r) bool on the grid's device.
    Raises:
        RangeError: a resolution that does not divide the grid's; a grid that is no cube.   DtypeError: no cells.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 5, 0, 7]], dtype=torch.int32), resolution=8)
        >>> occupancy(grid, 4).nonzero().tolist()
        [[0, 0, 2, 0, 3]]
    """
    where = "occupancy"
    grid = cells if isinstance(cells, VoxelGrid) else getattr(cells, "grid", None)
    if not isinstance(grid, VoxelGrid):
        raise DtypeError(f"{where}: cells must be a VoxelGrid or a record on one; got {describe(cells)}.")
    require_int(where, "resolution", resolution, 1)
    sides = set(grid.resolution)
    if len(sides) > 1 or grid.resolution[0] % resolution:
        raise RangeError(f"{where}: resolution must divide that of a cubic grid, {grid.resolution}; got {resolution}.")
    b, x, y, z = grid.coords.long().unbind(1)
    factor = grid.resolution[0] // resolution
    held = torch.zeros(grid.batch_size, 1, resolution, resolution, resolution, dtype=torch.bool, device=grid.device)
    held[b, 0, x // factor, y // factor, z // factor] = True
    return held
