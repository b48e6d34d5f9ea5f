"""The definition: every grid edge in the reach of every triangle is looked at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core.coords import pack_keys, unpack_keys

from ._prepare import Scene


class Crossings(NamedTuple):
    """Crossings of triangles with grid edges along one axis.

    triangle: (c,) int64.   cells: (c, 3) int64, the cell that owns the edge (the edge meets its upper corner).
    points: (c, 3) float64, where, relative to the lowest corner of the grid, in world units.
    """

    triangle: Tensor
    cells: Tensor
    points: Tensor


def triangle_cells(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """See `voxgen.ops.voxelize.triangle_cells`."""
    keys, triangles = [], []
    for axis in range(3):
        found = edge_crossings(scene, axis)
        for cells in neighbourhood(found.cells, axis):
            keys.append(cell_keys(cells))
            triangles.append(found.triangle)
    unique, row = torch.cat(keys).unique(return_inverse=True)
    pairs = (row * len(scene.faces) + torch.cat(triangles)).unique()
    triangle, row = pairs % len(scene.faces), pairs // len(scene.faces)
    return unpack_keys(unique)[:, 1:].contiguous(), triangle.int(), row.int()


def cell_keys(cells: Tensor) -> Tensor:
    """Packed keys of cells (n, 3) of one sample."""
    return pack_keys(torch.nn.functional.pad(cells, (1, 0)))


def neighbourhood(cells: Tensor, axis: int) -> list[Tensor]:
    """The four cells around the edge along `axis` that each of these cells owns, the owner first."""
    step = torch.eye(3, dtype=cells.dtype, device=cells.device)
    u, v = step[(axis + 1) % 3], step[(axis + 2) % 3]
    return [cells, cells + v, cells + u, cells + u + v]


def edge_crossings(scene: Scene, axis: int) -> Crossings:
    """All crossings of grid edges along `axis`.

    A triangle is cut by the grid planes across the second other axis a1 (rows); each cut is a segment from A to B, which
    is cut by the planes across the first other axis a0 (columns). A plane is crossed by a segment whose ends lie in
    different cells, so a plane belongs to the cell above it.
    """
    a0, a1 = (axis + 1) % 3, (axis + 2) % 3
    size, cells = scene.sizes(), scene.resolution
    p = scene.vertices[scene.faces.long()].double()
    order = p[:, :, a1].argsort(dim=1, stable=True)
    p = p.gather(1, order[:, :, None].expand(-1, -1, 3))
    rows = index(p[:, :, a1], size[a1], cells[a1])
    columns = index(p[:, :, a0], size[a0], cells[a0])

    # Every (row, column) of the triangle's bounding rectangle; rounding of a cut can leave it by one column.
    heights = rows[:, 2] - rows[:, 0]
    first = (columns.amin(1) - 1).clamp(min=0)
    widths = columns.amax(1) + 1 - first
    counts = heights * widths
    t = torch.arange(len(p), device=p.device).repeat_interleave(counts)
    offset = torch.arange(len(t), device=p.device) - (counts.cumsum(0) - counts)[t]
    row = rows[t, 0] + offset // widths[t]
    column = first[t] + offset % widths[t]

    # The cut of the row's plane: below the middle corner both legs start at the lowest corner, above at the highest.
    lower = row < rows[t, 1]
    base = torch.where(lower[:, None], p[t, 0], p[t, 2])
    far = torch.where(lower[:, None], p[t, 2], p[t, 0])
    y = plane(row, size[a1])
    a = cut(base, p[t, 1], a1, y, scene.closed)
    b = cut(base, far, a1, y, scene.closed)
    swap = (b[:, a0] < a[:, a0])[:, None]
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    hit = (index(a[:, a0], size[a0], cells[a0]) <= column) & (column < index(b[:, a0], size[a0], cells[a0]))
    t, row, column, y, a, b = (s[hit] for s in (t, row, column, y, a, b))
    x = plane(column, size[a0])
    z = cut(a, b, a0, x)[:, axis]
    layer = (z / size[axis]).long()  # truncation, as in the original: down to one voxel below the box counts as 0
    if scene.closed:
        layer = layer.clamp(max=cells[axis] - 1)
    inside = (layer >= 0) & (layer < cells[axis])
    owner = torch.empty((len(t), 3), dtype=torch.int64, device=p.device)
    point = torch.empty((len(t), 3), dtype=torch.float64, device=p.device)
    for k, (i, position) in zip((a0, a1, axis), ((column, x), (row, y), (layer, z)), strict=True):
        owner[:, k], point[:, k] = i, position
    return Crossings(t[inside], owner[inside], point[inside])


def index(position: Tensor, size: Tensor, cells: int) -> Tensor:
    """The cell of a position along one axis, kept inside the grid."""
    return (position / size).long().clamp(0, cells - 1)


def plane(cell: Tensor, size: Tensor) -> Tensor:
    """Position of the upper plane of a cell, rounded to float32."""
    return ((cell + 1).double() * size).float().double()


def cut(p: Tensor, q: Tensor, axis: int, position: Tensor, upwards: bool = False) -> Tensor:
    """Where the segments from p to q meet the plane across `axis` at `position`.

    Rounding of a plane can put it just outside a segment; the cut stays on the segment, so that a crossing always lies
    in its triangle. (The original extrapolates.)

    Args:
        upwards: start at the lower end. Two triangles then get the same cut, bit for bit, of the edge that they share, so
            that no grid line slips through between them or hits both. (The original starts at either end.)
    """
    if upwards:
        turn = (q[:, axis] < p[:, axis])[:, None]
        p, q = torch.where(turn, q, p), torch.where(turn, p, q)
    share = ((position - p[:, axis]) / (q[:, axis] - p[:, axis])).clamp(0, 1)[:, None]
    return (1 - share) * p + share * q
