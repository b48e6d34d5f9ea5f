"""The definition in plain torch, on any device."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from voxgen.core import VoxelGrid

from ._views import Views, index_to_pixels, pixels_to_index


def near_surface(grid: VoxelGrid, depth: Tensor, views: Views, margin: float, literal: bool) -> Tensor:
    """(n,) bool: centres that some view of their sample sees, no deeper than the margin behind the surface.

    Literal: deeper than the margin before it, as the paper prints it.
    """
    keep = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    centers = grid.cells.double() + 0.5
    bounds = grid.offsets.tolist()
    for view, sample in enumerate(views.sample.tolist()):
        rows = slice(bounds[sample], bounds[sample + 1])
        column, row, z = index_to_pixels(views, view, centers[rows])
        inside = (z >= views.near) & (z <= views.far) & (column >= 0) & (row >= 0) & (column < views.width) & (row < views.height)
        pixel = torch.where(inside, row, 0).long() * views.width + torch.where(inside, column, 0).long()
        surface = depth[view].double().flatten()[pixel]
        keep[rows] |= inside & ((z > surface - margin) if literal else (z <= surface + margin))
    return keep


def with_rings(grid: VoxelGrid, keep: Tensor, rings: int) -> Tensor:
    """`keep`, and the cells that exist no farther from a kept one than `rings` along any axis."""
    grown = keep.clone()
    span = range(-rings, rings + 1)
    for step in itertools.product(span, span, span):
        neighbor = grid.rows_of(grid.coords + torch.tensor([0, *step], dtype=torch.int32, device=grid.device))
        grown |= (neighbor >= 0) & keep[neighbor.clamp(min=0)]
    return grown


def cover(grid: VoxelGrid, depth: Tensor, views: Views, reach: float, keep: Tensor, add: bool) -> tuple[Tensor, Tensor]:
    """Which pixels' surface is held by kept cells; with `add`, after keeping the cells that it needs. (n,) and (v, h, w) bool.

    A pixel needs the cells that exist among those which meet the cube of half-side `reach` (cells) around its surface point.
    """
    kept = keep.clone()
    steps = list(itertools.product(range(math.floor(2 * reach) + 2), repeat=3))
    sides = views.height, views.width
    row, column = (t.flatten() + 0.5 for t in torch.meshgrid(*(torch.arange(s, device=grid.device) for s in sides), indexing="ij"))
    found = []
    for view, sample in enumerate(views.sample.tolist()):
        z = depth[view].double().flatten()
        seen = z.isfinite().nonzero()[:, 0]
        point = pixels_to_index(views, view, column[seen].double(), row[seen].double(), z[seen])
        limit = 2.0 * max(grid.resolution)
        low, high = ((point + side).clamp(-limit, limit).floor().int() for side in (-reach, reach))
        exists = torch.zeros(len(z), dtype=torch.bool, device=grid.device)
        lacks = torch.zeros(len(z), dtype=torch.bool, device=grid.device)
        for step in steps:
            cell = low + torch.tensor(step, dtype=torch.int32, device=grid.device)
            coords = torch.cat((torch.full_like(cell[:, :1], sample), cell), 1)
            at = torch.where((cell <= high).all(1), grid.rows_of(coords), -1)
            exists[seen] |= at >= 0
            if add:
                kept[at[at >= 0]] = True
            else:
                lacks[seen] |= (at >= 0) & ~kept[at.clamp(min=0)]
        empty = torch.ones(len(z), dtype=torch.bool, device=grid.device)
        empty[seen] = False
        found.append((empty | (exists & ~lacks)).reshape(sides))
    return kept, torch.stack(found) if found else torch.zeros(0, *sides, dtype=torch.bool, device=grid.device)


def carve(
    grid: VoxelGrid, depth: Tensor, views: Views, margin: float, literal: bool, rings: int, add: bool, reach: float
) -> tuple[Tensor, Tensor]:
    """See `voxgen.ops.carve.carve_by_depth`."""
    if len(grid) == 0:
        return torch.zeros(0, dtype=torch.bool, device=grid.device), ~depth.isfinite()
    keep = near_surface(grid, depth, views, margin, literal)
    return cover(grid, depth, views, reach, with_rings(grid, keep, rings) if rings else keep, add)
