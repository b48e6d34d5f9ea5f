"""Quads, cuts and vertex numbers compiled for the CPU.

Rows of a grid are sorted, so the cells at a fixed step from the cells of a run of rows are sorted too: one pointer per step
walks through the rows once and finds them all, without an index.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core.batching import offsets_from_counts
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup._numba import row_key

from ._connectivity import Connectivity, Quads, Rule
from ._numba_split import RULES, cut_quads
from ._triangulate import cell_shape, fans

CHUNK = 1 << 15
"""Rows that one task walks through."""


def connect(
    grid: VoxelGrid, dual: Tensor, intersected: Tensor, crossing_sign: Tensor | None, weight: Tensor | None, rule: Rule, keep_unused: bool
) -> Connectivity:
    """See `dual_faces`."""
    quads = find_quads(grid, intersected, crossing_sign)
    kept, number = None, torch.zeros(0, dtype=torch.int32)
    if not keep_unused:
        number = torch.zeros(len(grid), dtype=torch.int32)
        used = _number_used(quads.rows.numpy(), number.numpy())
        if used < len(grid):
            kept = torch.empty(used, dtype=torch.int32)
            _list_used(number.numpy(), kept.numpy())
    if rule == "middle":
        return Connectivity(quads, fans(grid, quads, kept), kept, True)
    faces = torch.empty((2 * len(quads.rows), 3), dtype=torch.int32)
    weights = dual.new_zeros(0) if weight is None else weight.contiguous()
    frame = grid.frame
    cut_quads(
        RULES[rule],
        quads.rows.numpy(),
        number.numpy() if kept is not None else np.zeros(0, dtype=np.int32),
        grid.coords.numpy(),
        dual.contiguous().numpy(),
        weights.detach().numpy(),
        cell_shape(grid).to(dual.dtype).numpy(),
        torch.tensor([frame.origin, frame.voxel_size], dtype=dual.dtype).numpy(),
        faces.numpy(),
    )
    return Connectivity(quads, faces, kept, False)


def find_quads(grid: VoxelGrid, intersected: Tensor, crossing_sign: Tensor | None) -> Quads:
    """All complete quads. Room is made for a quad at every flag; what incomplete ones leave empty is cut out at the end."""
    coords, flags = grid.coords.numpy(), intersected.contiguous().numpy()
    signs = np.zeros((0, 3), dtype=np.bool_) if crossing_sign is None else crossing_sign.contiguous().numpy()
    bounds, sample = _tasks(grid.offsets.numpy())
    flagged = _count_flags(flags, bounds)
    first = np.concatenate((np.zeros(1, dtype=np.int64), flagged.cumsum()))
    rows = torch.empty((int(first[-1]), 4), dtype=torch.int32)
    axis = torch.empty(int(first[-1]), dtype=torch.uint8)
    found = _walk(coords, flags, signs, np.array(grid.resolution, dtype=np.int64), bounds, first, rows.numpy(), axis.numpy())
    if (found < flagged).any():
        runs = [slice(start, start + count) for start, count in zip(first.tolist(), found.tolist(), strict=False)]
        rows, axis = torch.cat([rows[run] for run in runs]), torch.cat([axis[run] for run in runs])
    by_sample = np.zeros((grid.batch_size, 2), dtype=np.int64)
    np.add.at(by_sample, sample, np.stack((found, flagged - found), 1))
    counts, dropped = torch.from_numpy(by_sample).unbind(1)
    return Quads(rows, axis, offsets_from_counts(counts), dropped.contiguous())


def _tasks(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of at most CHUNK rows of one sample: (t, 2) first and last + 1 row, (t,) sample."""
    pieces = -(-np.diff(offsets) // CHUNK)
    sample = np.repeat(np.arange(len(pieces)), pieces)
    place = np.arange(len(sample)) - np.repeat(pieces.cumsum() - pieces, pieces)
    start = offsets[sample] + place * CHUNK
    return np.stack((start, np.minimum(start + CHUNK, offsets[sample + 1])), 1), sample


@njit(cache=True, nogil=True, error_model="numpy")
def _search(coords, key):  # pyright: ignore
    """First row whose key is not less."""
    low, high = 0, len(coords)
    while low < high:
        middle = (low + high) >> 1
        if row_key(coords, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count_flags(flags, bounds):  # pyright: ignore
    counts = np.zeros(len(bounds), dtype=np.int64)
    for t in prange(len(bounds)):
        total = 0
        for i in range(bounds[t, 0], bounds[t, 1]):
            total += np.int64(flags[i, 0]) + np.int64(flags[i, 1]) + np.int64(flags[i, 2])
        counts[t] = total
    return counts


@njit(cache=True, nogil=True, error_model="numpy")
def _key_or_end(coords, i):  # pyright: ignore
    return row_key(coords, i) if i < len(coords) else np.int64(1) << 62


@njit(cache=True, nogil=True, error_model="numpy")
def _follow(coords, row, here, key):  # pyright: ignore
    """Walk from `row`, whose key is `here`, to the first row whose key is not less than `key`; return that row and its key."""
    while here < key:
        row += 1
        here = _key_or_end(coords, row)
    return row, here


@njit(cache=True, nogil=True, error_model="numpy")
def _next_along_z(coords, row, key):  # pyright: ignore
    """The row of the cell after `row`, whose key is `key`, along z; -1 if it is absent."""
    return row + 1 if _key_or_end(coords, row + 1) == key + 1 else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _emit(quads, axes, place, axis, a, b, c, d, reverse):  # pyright: ignore
    """Write a quad if it is complete; the next place."""
    if b < 0 or c < 0 or d < 0:
        return place
    axes[place] = axis
    quads[place, 0], quads[place, 2] = a, c
    quads[place, 1], quads[place, 3] = (d, b) if reverse else (b, d)
    return place + 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _walk(coords, flags, signs, limits, bounds, first, quads, axes):  # pyright: ignore
    """Write the complete quads of each task from `first` on; how many they are."""
    counts = np.zeros(len(bounds), dtype=np.int64)
    signed = len(signs) > 0
    step_y, step_x = np.int64(1) << 16, np.int64(1) << 32
    for t in prange(len(bounds)):
        start, end = bounds[t, 0], bounds[t, 1]
        place = first[t]
        row_y = _search(coords, row_key(coords, start) + step_y)
        row_x = _search(coords, row_key(coords, start) + step_x)
        row_xy = _search(coords, row_key(coords, start) + step_x + step_y)
        key_y, key_x, key_xy = _key_or_end(coords, row_y), _key_or_end(coords, row_x), _key_or_end(coords, row_xy)
        for i in range(start, end):
            fx, fy, fz = flags[i, 0], flags[i, 1], flags[i, 2]
            if not (fx or fy or fz):
                continue
            key = row_key(coords, i)
            # A step out of the grid would carry into the next axis, and find a cell at the other side.
            in_x, in_y, in_z = coords[i, 1] + 1 < limits[0], coords[i, 2] + 1 < limits[1], coords[i, 3] + 1 < limits[2]
            z = _next_along_z(coords, i, key) if in_z else -1
            y, x = -1, -1
            if in_y and (fx or fz):
                row_y, key_y = _follow(coords, row_y, key_y, key + step_y)
                y = row_y if key_y == key + step_y else -1
            if in_x and (fy or fz):
                row_x, key_x = _follow(coords, row_x, key_x, key + step_x)
                x = row_x if key_x == key + step_x else -1
            if fx and y >= 0 and z >= 0:
                yz = _next_along_z(coords, row_y, key_y)
                place = _emit(quads, axes, place, 0, i, z, yz, y, signed and signs[i, 0])
            if fy and x >= 0 and z >= 0:
                xz = _next_along_z(coords, row_x, key_x)
                place = _emit(quads, axes, place, 1, i, x, xz, z, signed and signs[i, 1])
            if fz and x >= 0 and y >= 0:
                row_xy, key_xy = _follow(coords, row_xy, key_xy, key + step_x + step_y)
                xy = row_xy if key_xy == key + step_x + step_y else -1
                place = _emit(quads, axes, place, 2, i, y, xy, x, signed and signs[i, 2])
        counts[t] = place - first[t]
    return counts


@njit(cache=True, nogil=True, error_model="numpy")
def _number_used(quads, number):  # pyright: ignore
    """Replace `number` by the place of each used row among the used ones, -1 for the others; returns how many there are."""
    for q in range(len(quads)):
        for corner in range(4):
            number[quads[q, corner]] = 1
    used = 0
    for i in range(len(number)):
        if number[i] == 1:
            number[i] = used
            used += 1
        else:
            number[i] = -1
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def _list_used(number, kept):  # pyright: ignore
    for i in range(len(number)):
        if number[i] >= 0:
            kept[number[i]] = i
