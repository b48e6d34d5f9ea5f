"""Cutting quads in triangles and numbering the vertices, in plain torch for any device."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._connectivity import Connectivity, Quads, Rule

CHUNK = 1 << 18
"""Quads whose angles are measured at once; some 250 bytes each."""


def triangulate(grid: VoxelGrid, quads: Quads, dual: Tensor, weight: Tensor | None, rule: Rule, keep_unused: bool) -> Connectivity:
    """Cut the quads by `rule` and drop the vertices of cells that have none, unless they are to be kept."""
    kept = None if keep_unused else _used_rows(len(grid), quads.rows)
    if rule == "middle":
        return Connectivity(quads, fans(grid, quads, kept), kept, True)
    first = torch.cat([_cut_first(grid, rows, dual, weight, rule) for rows in quads.rows.split(CHUNK)])
    a, b, c, d = _number(grid, kept)[quads.rows].unbind(1)
    columns = (a, b, torch.where(first, c, d), torch.where(first, a, d), torch.where(first, c, b), torch.where(first, d, c))
    return Connectivity(quads, torch.stack(columns, 1).reshape(-1, 3), kept, False)


def fans(grid: VoxelGrid, quads: Quads, kept: Tensor | None) -> Tensor:
    """(4q, 3) int32 triangles around the middle vertex of each quad."""
    cells = kept_offsets(grid, kept)
    sample = torch.arange(grid.batch_size, device=grid.device).repeat_interleave(quads.offsets.diff())
    middle = (cells[1:][sample] + torch.arange(len(quads.rows), device=grid.device)).int()
    shift = quads.offsets[:-1][sample].int()  # middle vertices of the samples before
    corners = _number(grid, kept)[quads.rows] + shift[:, None]
    a, b, c, d = corners.unbind(1)
    return torch.stack((a, b, middle, b, c, middle, c, d, middle, d, a, middle), 1).reshape(-1, 3)


def kept_offsets(grid: VoxelGrid, kept: Tensor | None) -> Tensor:
    """(b + 1,) int64 bounds of the samples among the kept cells."""
    return grid.offsets if kept is None else torch.searchsorted(kept, grid.offsets.int())


def _used_rows(n: int, quads: Tensor) -> Tensor | None:
    """(u,) int32 rows that some quad uses; None if that is all of them."""
    used = torch.zeros(n, dtype=torch.bool, device=quads.device)
    used[quads.flatten()] = True
    rows = used.nonzero()[:, 0].int()
    return None if len(rows) == n else rows


def _number(grid: VoxelGrid, kept: Tensor | None) -> Tensor:
    """(n,) int32 place of each row among the kept ones; meaningless for others."""
    number = torch.arange(len(grid), dtype=torch.int32, device=grid.device)
    if kept is not None:
        number[kept] = torch.arange(len(kept), dtype=torch.int32, device=grid.device)
    return number


def _cut_first(grid: VoxelGrid, quads: Tensor, dual: Tensor, weight: Tensor | None, rule: Rule) -> Tensor:
    """(q,) bool: cut along corners 0–2. The compiled engine does the same arithmetic in the same order, so results are equal."""
    if rule == "first":
        return torch.ones(len(quads), dtype=torch.bool, device=quads.device)
    if weight is not None and rule == "weight":
        w = weight[quads]
        return w[:, 0] * w[:, 2] > w[:, 1] * w[:, 3]
    cells = grid.cells[quads]
    if rule == "trellis2":
        a, b, c, _ = grid.frame.to_world(cells.to(dual.dtype) + dual[quads]).unbind(1)
        normal = _cross(b - a, c - a)
        return _dot(normal, normal) > 0
    steps = (cells - cells[:, :1]).to(dual.dtype)
    a, b, c, d = ((steps + dual[quads]) * cell_shape(grid).to(dual)).unbind(1)
    one = _flatness(_cross(b - a, c - a), _cross(c - a, d - a))
    other = _flatness(_cross(b - a, d - a), _cross(b - d, c - d))
    return one >= other


def cell_shape(grid: VoxelGrid) -> Tensor:
    """(3,) float64 sides of a cell over its longest: 1, 1, 1 for cubes."""
    size = torch.tensor(grid.frame.voxel_size, dtype=torch.float64)
    return size / size.max()


def _flatness(n: Tensor, m: Tensor) -> Tensor:
    """The cosine of the angle between two normals, times its magnitude; -1, a fold, where one of them vanishes.

    This rises with the cosine and needs no square root, which torch does not round correctly on every CPU.
    """
    square, dot = _dot(n, n) * _dot(m, m), _dot(n, m)
    return torch.where(square > 0, dot * dot.abs() / square, -1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    p = a * b
    return p[:, 0] + p[:, 1] + p[:, 2]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Written out, so that no fused multiply-add makes it differ from one machine to the next."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), 1)
