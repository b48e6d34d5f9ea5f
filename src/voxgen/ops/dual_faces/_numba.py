"""Quads, cuts and vertex numbers compiled for the CPU.

Rows of a grid are sorted, so the cells at a fixed step from the cells of a run of rows are sorted too: one pointer per step
walks through the rows once and finds them all, without an index.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.core.grid import VoxelGrid

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
    """All complete quads: counted in a first walk, written in a second."""
    coords, flags = grid.coords.numpy(), intersected.contiguous().numpy()
    signs = np.zeros((0, 3), dtype=np.bool_) if crossing_sign is None else crossing_sign.contiguous().numpy()
    limits = np.array(grid.resolution, dtype=np.int64)
    bounds, sample = _tasks(grid.offsets.numpy())
    none = np.zeros(0, dtype=np.int64)
    counts = _walk(coords, flags, signs, limits, bounds, none, np.zeros((0, 4), dtype=np.int32), np.zeros(0, dtype=np.uint8))
    first = np.concatenate((np.zeros(1, dtype=np.int64), counts[:, 0].cumsum()))
    rows = torch.empty((int(first[-1]), 4), dtype=torch.int32)
    axis = torch.empty(int(first[-1]), dtype=torch.uint8)
    _walk(coords, flags, signs, limits, bounds, first, rows.numpy(), axis.numpy())
    by_sample = np.zeros((grid.batch_size, 2), dtype=np.int64)
    np.add.at(by_sample, sample, counts)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), by_sample[:, 0].cumsum()))
    return Quads(rows, axis, torch.from_numpy(offsets), torch.from_numpy(by_sample[:, 1].copy()))


def _tasks(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of at most CHUNK rows of one sample: (t, 2) first and last + 1 row, (t,) sample."""
    pieces = -(-np.diff(offsets) // CHUNK)
    sample = np.repeat(np.arange(len(pieces)), pieces)
    place = np.arange(len(sample)) - np.repeat(pieces.cumsum() - pieces, pieces)
    start = offsets[sample] + place * CHUNK
    return np.stack((start, np.minimum(start + CHUNK, offsets[sample + 1])), 1), sample


@njit(cache=True, nogil=True, error_model="numpy")
def _key(coords, i):  # pyright: ignore
    return (((np.int64(coords[i, 0]) << 16 | coords[i, 1]) << 16) | coords[i, 2]) << 16 | coords[i, 3]


@njit(cache=True, nogil=True, error_model="numpy")
def _search(coords, key):  # pyright: ignore
    """First row whose key is not less."""
    low, high = 0, len(coords)
    while low < high:
        middle = (low + high) >> 1
        if _key(coords, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _pair(coords, row, key, inside, z_inside):  # pyright: ignore
    """Walk from `row` to the first row whose key is not less; the rows of `key` and of the next cell along z, -1 if absent."""
    n = len(coords)
    while row < n and _key(coords, row) < key:
        row += 1
    here, above, next_row = -1, -1, row
    if inside and row < n and _key(coords, row) == key:
        here, next_row = row, row + 1
    if inside and z_inside and next_row < n and _key(coords, next_row) == key + 1:
        above = next_row
    return row, here, above


@njit(cache=True, nogil=True, error_model="numpy")
def _emit(quads, axes, place, axis, a, b, c, d, reverse):  # pyright: ignore
    """Write a quad if there is room to write; 1 if it is complete."""
    if b < 0 or c < 0 or d < 0:
        return 0
    if len(quads) > 0:
        quads[place, 0], quads[place, 2], axes[place] = a, c, axis
        quads[place, 1], quads[place, 3] = (d, b) if reverse else (b, d)
    return 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _walk(coords, flags, signs, limits, bounds, first, quads, axes):  # pyright: ignore
    """(t, 2) complete and incomplete quads of each task; writes the complete ones from `first` on if `quads` has room."""
    counts = np.zeros((len(bounds), 2), dtype=np.int64)
    n = len(coords)
    write, signed = len(quads) > 0, len(signs) > 0
    step_y, step_x = np.int64(1) << 16, np.int64(1) << 32
    for t in prange(len(bounds)):
        start, end = bounds[t, 0], bounds[t, 1]
        place = first[t] if write else 0
        complete, flagged = 0, 0
        row_y = _search(coords, _key(coords, start) + step_y)
        row_x = _search(coords, _key(coords, start) + step_x)
        row_xy = _search(coords, _key(coords, start) + step_x + step_y)
        for i in range(start, end):
            fx, fy, fz = flags[i, 0], flags[i, 1], flags[i, 2]
            if not (fx or fy or fz):
                continue
            key = _key(coords, i)
            # A step out of the grid would carry into the next axis, and find a cell at the other side.
            in_x, in_y, in_z = coords[i, 1] + 1 < limits[0], coords[i, 2] + 1 < limits[1], coords[i, 3] + 1 < limits[2]
            z = i + 1 if in_z and i + 1 < n and _key(coords, i + 1) == key + 1 else -1
            y, yz, x, xz, xy = -1, -1, -1, -1, -1
            if fx or fz:
                row_y, y, yz = _pair(coords, row_y, key + step_y, in_y, in_z)
            if fy or fz:
                row_x, x, xz = _pair(coords, row_x, key + step_x, in_x, in_z)
            if fx:
                complete += _emit(quads, axes, place + complete, 0, i, z, yz, y, signed and signs[i, 0])
            if fy:
                complete += _emit(quads, axes, place + complete, 1, i, x, xz, z, signed and signs[i, 1])
            if fz:
                row_xy, xy, _ = _pair(coords, row_xy, key + step_x + step_y, in_x and in_y, in_z)
                complete += _emit(quads, axes, place + complete, 2, i, y, xy, x, signed and signs[i, 2])
            flagged += np.int64(fx) + np.int64(fy) + np.int64(fz)
        counts[t, 0], counts[t, 1] = complete, flagged - complete
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
