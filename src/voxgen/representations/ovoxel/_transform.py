"""Crop, merge, and change of resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import RangeError, ShapeError
from voxgen.representations._crop import crop_grid

if TYPE_CHECKING:
    from ._fields import OVoxel


def crop(ovoxel: OVoxel, low: Int3, high: Int3, *, rebase: bool = False) -> OVoxel:
    """Keep the cells with low <= (x, y, z) < high.

    Args:
        low, high: cell indices; parts of the box outside the grid hold no cells.
        rebase: make `low` the new cell (0, 0, 0) and the box the new grid; the frame moves along, so world positions stay.
    Raises:
        RangeError: an empty box; with `rebase`, a box that is not inside the grid.
    """
    grid, keep = crop_grid("OVoxel.crop", ovoxel.grid, low, high, rebase)
    return ovoxel.rows(grid, keep)


def merge(ovoxel: OVoxel, other: OVoxel) -> OVoxel:
    """The union of two O-Voxels on one lattice (same resolution, frame, batch size and fields).

    Where both have a cell, an edge is flagged if either flags it; dual vertices, split weights and materials are their
    mean; a crossing sign is the one of the side that flags the edge (of `ovoxel`, where both do).

    Raises:
        RangeError: other resolution or batch size.   FrameError: other frame.   ShapeError: other fields.
    """
    where = "OVoxel.merge"
    if ovoxel.resolution != other.resolution or ovoxel.batch_size != other.batch_size:
        raise RangeError(f"{where}: both must have one resolution and batch size; got {ovoxel!r} and {other!r}.")
    ovoxel.frame.require_close(where, other.frame)
    if list(ovoxel.materials) != list(other.materials):
        raise ShapeError(f"{where}: both must have the same materials; got {list(ovoxel.materials)} and {list(other.materials)}.")
    if ovoxel.color_space != other.color_space:
        raise RangeError(f"{where}: both must have one color_space; got {ovoxel.color_space!r} and {other.color_space!r}.")
    for name in ("crossing_sign", "split_weight"):
        if (getattr(ovoxel, name) is None) != (getattr(other, name) is None):
            raise ShapeError(f"{where}: both or none must have {name}.")
    keys, rows = torch.cat((ovoxel.grid.keys, other.grid.keys)).unique(return_inverse=True)
    first, second = rows[: len(ovoxel)], rows[len(ovoxel) :]
    count = torch.zeros(len(keys), 1, device=ovoxel.device).index_add(0, rows, torch.ones(len(rows), 1, device=ovoxel.device))

    def mean(a: Tensor, b: Tensor) -> Tensor:
        total = a.new_zeros(len(keys), a.shape[1]).index_add(0, first, a).index_add(0, second, b.to(a))
        return total / count.to(a)

    def either(a: Tensor, b: Tensor) -> Tensor:
        out = a.new_zeros(len(keys), 3)
        out[first] = a
        out[second] |= b
        return out

    sign = None
    if ovoxel.crossing_sign is not None and other.crossing_sign is not None:
        sign = ovoxel.crossing_sign.new_zeros(len(keys), 3)
        sign[second] = other.crossing_sign & other.intersected
        sign[first] = torch.where(ovoxel.intersected, ovoxel.crossing_sign, sign[first])
    weight = None
    if ovoxel.split_weight is not None and other.split_weight is not None:
        weight = mean(ovoxel.split_weight, other.split_weight)
    grid = VoxelGrid.from_sorted(unpack_keys(keys), resolution=ovoxel.resolution, batch_size=ovoxel.batch_size, frame=ovoxel.frame)
    return type(ovoxel)(
        grid,
        mean(ovoxel.dual_vertices, other.dual_vertices),
        either(ovoxel.intersected, other.intersected),
        sign,
        weight,
        {name: mean(value, other.materials[name]) for name, value in ovoxel.materials.items()},
        ovoxel.color_space,
    )


def resample(ovoxel: OVoxel, resolution: int | Int3) -> OVoxel:
    """The same surface at another resolution, in the same box.

    If the resolution divides the present one, coarse edges are flagged exactly where one of their fine edges is, and dual
    vertices and materials are means over the fine cells. Otherwise the surface is extracted and converted again, and
    materials are sampled trilinearly.

    Args:
        resolution: cells an axis, one number or three. The box stays, so the cells change their size.
    """
    new = require_int3("OVoxel.resample", "resolution", resolution, 1, MAX_RESOLUTION)
    if new == ovoxel.resolution:
        return ovoxel
    if all(old % n == 0 for old, n in zip(ovoxel.resolution, new, strict=True)):
        x, y, z = (old // n for old, n in zip(ovoxel.resolution, new, strict=True))
        return _coarsen(ovoxel, (x, y, z), new)
    return _reconvert(ovoxel, new)


def _coarsen(ovoxel: OVoxel, factor: Int3, resolution: Int3) -> OVoxel:
    device = ovoxel.device
    k = torch.tensor(factor, dtype=torch.int32, device=device)
    cells = ovoxel.grid.cells
    parent = torch.cat((ovoxel.grid.batch[:, None], cells // k), 1)
    # A coarse edge along axis a runs through the fine edges of the cells that are last in the other two axes.
    last = (cells % k) == k - 1
    on_coarse_edge = torch.stack((last[:, 1] & last[:, 2], last[:, 0] & last[:, 2], last[:, 0] & last[:, 1]), 1)
    keys, rows = pack_keys(parent).unique(return_inverse=True)
    crossed = torch.zeros(len(keys), 3, dtype=torch.int32, device=device)
    crossed.index_add_(0, rows, (ovoxel.intersected & on_coarse_edge).int())
    intersected = crossed > 0
    owner = unpack_keys(keys)
    grid = VoxelGrid.from_sorted(owner, resolution=resolution, batch_size=ovoxel.batch_size, frame=ovoxel.frame.coarsen(factor))
    keep = _around_flags(grid, intersected)
    count = torch.zeros(len(keys), 1, device=device).index_add(0, rows, torch.ones(len(rows), 1, device=device))

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(len(keys), values.shape[1]).index_add(0, rows, values) / count.to(values)

    sign = None
    if ovoxel.crossing_sign is not None:
        votes = torch.where(ovoxel.crossing_sign, 1, -1) * (ovoxel.intersected & on_coarse_edge)
        sign = torch.zeros(len(keys), 3, dtype=torch.int64, device=device).index_add_(0, rows, votes) > 0
    local = (cells % k + ovoxel.dual_vertices) / k
    coarse = type(ovoxel)(
        grid,
        mean(local),
        intersected,
        sign,
        None if ovoxel.split_weight is None else mean(ovoxel.split_weight),
        {name: mean(value) for name, value in ovoxel.materials.items()},
        ovoxel.color_space,
    )
    return coarse.rows(grid.select(keep), keep)


def _around_flags(grid: VoxelGrid, intersected: Tensor) -> Tensor:
    """(n,) bool: the cells that touch a flagged edge, which are the only ones a conversion would have made."""
    keep = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    for axis in range(3):
        owners = grid.coords[intersected[:, axis]]
        b, c = ((axis + 1) % 3, (axis + 2) % 3)
        for step_b in (0, 1):
            for step_c in (0, 1):
                shift = torch.zeros(4, dtype=torch.int32, device=grid.device)
                shift[1 + b], shift[1 + c] = step_b, step_c
                rows = grid.rows_of(owners + shift)
                keep[rows[rows >= 0]] = True
    return keep


def _reconvert(ovoxel: OVoxel, resolution: Int3) -> OVoxel:
    from voxgen.core import Frame
    from voxgen.ops.sample import sample_trilinear

    low, high = ovoxel.frame.bounds(ovoxel.resolution)
    frame = Frame.box(low, high, resolution, ovoxel.frame.up)
    converted = []
    for index in range(ovoxel.batch_size):
        item = ovoxel.sample(index)
        if len(item) == 0 or not bool(item.intersected.any()):
            empty = VoxelGrid.from_sorted(item.coords[:0], resolution=resolution, batch_size=1, frame=frame)
            converted.append(item.rows(empty, torch.zeros(0, dtype=torch.int64, device=ovoxel.device)))
            continue
        mesh = item.to_mesh(materials=None)
        new = type(ovoxel).from_mesh(mesh, resolution, frame=frame, materials=False)
        points = item.frame.to_index(frame.to_world(new.grid.cells + new.dual_vertices))
        columns = {}
        for name, value in item.materials.items():
            columns[name] = sample_trilinear(value, item.grid, points)
        weight = None
        if item.split_weight is not None:
            weight = sample_trilinear(item.split_weight, item.grid, points)
        sign = None if item.crossing_sign is None else new.crossing_sign
        converted.append(new.replace(materials=columns, split_weight=weight, crossing_sign=sign, color_space=item.color_space))
    return type(ovoxel).batched(converted)
