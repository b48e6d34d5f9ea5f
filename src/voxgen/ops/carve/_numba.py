"""Compiled CPU engine: cells on threads; surface points one after the other, skipping those in the cells of the one before."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._numba import arrays, row_at

from ._views import Views


def carve(
    grid: VoxelGrid, depth: Tensor, views: Views, margin: float, literal: bool, rings: int, add: bool, reach: float
) -> tuple[Tensor, Tensor]:
    """See `voxgen.ops.carve.carve_by_depth`."""
    if len(grid) == 0:
        return torch.zeros(0, dtype=torch.bool), ~depth.isfinite()
    index = arrays(block_index(grid, backend="numba"))
    coords, bounds, images = grid.coords.numpy(), grid.offsets.numpy(), depth.detach().contiguous().numpy()
    sample, project, unproject = (t.contiguous().numpy() for t in (views.sample, views.project, views.unproject))
    keep = np.zeros(len(grid), np.bool_)
    for view, shown in enumerate(sample):
        part = slice(bounds[shown], bounds[shown + 1])
        limits = np.array([views.near, views.far, margin])
        _near_surface(coords[part], project[view], views.orthographic, images[view], limits, literal, keep[part])
    if rings:
        grown = np.empty_like(keep)
        _grow(*index, coords, keep, rings, grown)
        keep = grown
    covered = np.ones(images.shape, np.bool_)
    limit = 2.0 * max(grid.resolution)
    for view, shown in enumerate(sample):
        _cover(*index, shown, unproject[view], views.orthographic, images[view], reach, limit, add, keep, covered[view])
    return torch.from_numpy(keep), torch.from_numpy(covered)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _near_surface(coords, m, orthographic, depth, limits, literal, keep):  # pyright: ignore
    height, width = depth.shape
    near, far, margin = limits[0], limits[1], limits[2]
    for i in prange(len(coords)):
        x, y, w = coords[i, 1] + 0.5, coords[i, 2] + 0.5, coords[i, 3] + 0.5
        z = m[2, 0] * x + m[2, 1] * y + m[2, 2] * w + m[2, 3]
        if z < near or z > far:
            continue
        column = m[0, 0] * x + m[0, 1] * y + m[0, 2] * w + m[0, 3]
        row = m[1, 0] * x + m[1, 1] * y + m[1, 2] * w + m[1, 3]
        if not orthographic:
            column /= z
            row /= z
        if column >= 0 and row >= 0 and column < width and row < height:
            surface = np.float64(depth[int(row), int(column)])
            if (z > surface - margin) if literal else (z <= surface + margin):
                keep[i] = True


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _grow(table, blocks, leaves, nx, ny, nz, batch, coords, keep, rings, grown):  # pyright: ignore
    for i in prange(len(coords)):
        found = keep[i]
        b, x, y, z = coords[i, 0], coords[i, 1], coords[i, 2], coords[i, 3]
        for dx in range(-rings, rings + 1):
            if found:
                break
            for dy in range(-rings, rings + 1):
                if found:
                    break
                for dz in range(-rings, rings + 1):
                    row = row_at(table, blocks, leaves, nx, ny, nz, batch, b, x + dx, y + dy, z + dz)
                    if row >= 0 and keep[row]:
                        found = True
                        break
        grown[i] = found


@njit(cache=True, nogil=True, error_model="numpy")
def _cover(table, blocks, leaves, nx, ny, nz, batch, sample, m, orthographic, depth, reach, limit, add, keep, covered):  # pyright: ignore
    height, width = depth.shape
    low, high, last = np.empty(3, np.int64), np.empty(3, np.int64), np.full(6, -(1 << 62))
    answer = True
    for i in range(height):
        for j in range(width):
            z = np.float64(depth[i, j])
            if not math.isfinite(z):
                continue
            a, b = j + 0.5, i + 0.5
            if not orthographic:
                a *= z
                b *= z
            same = True
            for axis in range(3):
                p = m[axis, 0] * a + m[axis, 1] * b + m[axis, 2] * z + m[axis, 3]
                low[axis] = math.floor(min(max(p - reach, -limit), limit))
                high[axis] = math.floor(min(max(p + reach, -limit), limit))
                same = same and low[axis] == last[axis] and high[axis] == last[3 + axis]
            if not same:
                last[:3], last[3:] = low, high
                exists, lacks = False, False
                for cx in range(low[0], high[0] + 1):
                    for cy in range(low[1], high[1] + 1):
                        for cz in range(low[2], high[2] + 1):
                            row = row_at(table, blocks, leaves, nx, ny, nz, batch, sample, cx, cy, cz)
                            if row >= 0:
                                exists = True
                                if add:
                                    keep[row] = True
                                lacks = lacks or not keep[row]
                answer = exists and not lacks
            covered[i, j] = answer
