"""Compiled CPU engine, exact at the cost of a pass over columns.

Let strips hang down from every border edge, without end. With them the surface is closed, so its winding number around a cell is
the number of signed crossings of the ray upwards; the ray crosses no strip. So

    winding number = crossings of the mesh above the cell − solid angle of the strips / 4π,

and without a border the crossings are all. The strips' share changes slowly away from the border: by at most
Σ length / (4π distance²) for each cell of way, unless a strip stands in it. So it is taken once for a block of 8³ cells where
that decides all of them, else cell by cell. For very long borders the winding number is approximated instead.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.voxelize._prepare import Scene

from ._border import border
from ._columns import crossings_above

MANY = 2000
"""Border edges beyond which the sum over them is left to libigl's fast winding number: a soup of triangles is all border."""
SIDE = 8
"""Cells along each axis of a block of `voxgen.ops.lookup`."""
SPAN = (SIDE - 1) / 2
"""From the centre of a block to the centres of its outermost cells, along an axis."""


def winding(scene: Scene, grid: VoxelGrid, numbers: bool) -> Tensor:
    """See `voxgen.ops.inside_mesh`: the numbers, or whether they exceed one half."""
    edges = border(scene)
    if len(edges.excess) > MANY:
        from ._libigl import approximate_winding

        found = approximate_winding(scene, grid)
        return found if numbers else found > 0.5
    coords = grid.coords.numpy()
    above = crossings_above(scene, coords)
    if numbers:
        found = np.empty(len(grid), np.float64)
        _add_strips(coords, above, *edges, found)
        return torch.from_numpy(found)
    if len(edges.excess) == 0 or len(grid) == 0:
        return torch.from_numpy(above > 0)
    index = block_index(grid, backend="numba")
    inside = np.empty(len(grid), np.bool_)
    _decide(coords, above, index.leaves.numpy(), len(index.blocks), *edges, inside)
    return torch.from_numpy(inside)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _turn(ax, ay, bx, by):
    """Twice the signed area of the triangle (0, a, b) in the plane, never 0: where it is, that of a point moved by (ε, ε²)."""
    area = ax * by - ay * bx
    if area != 0:
        return area
    shift = (ay - by) if ay != by else (bx - ax)
    return 1e-300 if shift > 0 else -1e-300


@njit(cache=True, nogil=True, error_model="numpy")
def _strip(px, py, pz, start, end):
    """Solid angle of the strip below an edge, seen from p: the formula of a triangle whose third corner is infinitely far down."""
    ax, ay, az = start[0] - px, start[1] - py, start[2] - pz
    bx, by, bz = end[0] - px, end[1] - py, end[2] - pz
    na, nb = np.sqrt(ax * ax + ay * ay + az * az), np.sqrt(bx * bx + by * by + bz * bz)
    divisor = na * nb + ax * bx + ay * by + az * bz - az * nb - bz * na
    return 2 * np.arctan2(-_turn(ax, ay, bx, by), divisor)


@njit(cache=True, nogil=True, error_model="numpy")
def _strips(px, py, pz, start, end, count):
    """What the strips add to the crossings; they close the surface, so they run backwards."""
    total = 0.0
    for e in range(len(count)):
        total += count[e] * _strip(px, py, pz, start[e], end[e])
    return total / (4 * np.pi)


@njit(cache=True, nogil=True, error_model="numpy")
def _to_edge(px, py, pz, start, end, weight):
    """Squared distance from p to a segment; `weight` 0 looks along z."""
    dx, dy, dz = end[0] - start[0], end[1] - start[1], weight * (end[2] - start[2])
    x, y, z = px - start[0], py - start[1], weight * (pz - start[2])
    square = dx * dx + dy * dy + dz * dz
    t = min(max((x * dx + y * dy + z * dz) / square, 0.0), 1.0) if square > 0 else 0.0
    x, y, z = x - t * dx, y - t * dy, z - t * dz
    return x * x + y * y + z * z


@njit(cache=True, nogil=True, error_model="numpy")
def _change(px, py, pz, start, end, count):
    """By how much the strips' share can differ between the centre p of a block and its cells; infinite if a strip may be between."""
    radius, reach = np.sqrt(3.0) * SPAN, np.sqrt(2.0) * SPAN
    total = 0.0
    for e in range(len(count)):
        below = pz - SPAN < max(start[e, 2], end[e, 2])
        if below and _to_edge(px, py, pz, start[e], end[e], 0.0) <= (reach + 1e-6) ** 2:
            return np.inf
        apart = np.sqrt(_to_edge(px, py, pz, start[e], end[e], 1.0)) - radius
        if apart <= 1e-6:
            return np.inf
        dx, dy, dz = end[e, 0] - start[e, 0], end[e, 1] - start[e, 1], end[e, 2] - start[e, 2]
        total += count[e] * np.sqrt(dx * dx + dy * dy + dz * dz) / (apart * apart)
    return total * radius / (4 * np.pi)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _decide(coords, above, leaves, blocks, start, end, count, inside):
    for leaf in prange(1, blocks + 1):
        rows = leaves[leaf << 9 : (leaf + 1) << 9]
        share, decided, known = 0.0, False, False
        for row in rows:
            if row < 0:
                continue
            x, y, z = coords[row, 1], coords[row, 2], coords[row, 3]
            if not known:
                px, py, pz = float((x & -SIDE) + SIDE / 2), float((y & -SIDE) + SIDE / 2), float((z & -SIDE) + SIDE / 2)
                change = _change(px, py, pz, start, end, count)
                if change < 0.5:
                    share = _strips(px, py, pz, start, end, count)
                    decided = abs(share - np.floor(share) - 0.5) > change
                known = True
            own = share if decided else _strips(x + 0.5, y + 0.5, z + 0.5, start, end, count)
            inside[row] = above[row] + own > 0.5


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _add_strips(coords, above, start, end, count, winding):
    for row in prange(len(coords)):
        x, y, z = coords[row, 1] + 0.5, coords[row, 2] + 0.5, coords[row, 3] + 0.5
        winding[row] = above[row] + _strips(x, y, z, start, end, count)
