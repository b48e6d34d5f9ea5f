"""Compiled CPU engine: bricks near the mesh on threads, some at a time, then one move to the final order."""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor
from tqdm import tqdm

from voxgen.ops.voxelize._bricks import BITS, SIDE, VOLUME, bin_triangles, corners_in_cells, lexicographic_rows, load_corners
from voxgen.ops.voxelize._prepare import Scene

from ._kernel import FACTS, brick_distances, load_facts

AT_ONCE = 1024
"""Bricks whose cells, far ones included, are held at one time."""


def distance_band(scene: Scene, band: float, progress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `voxgen.ops.distance_band.distance_band`."""
    table = bin_triangles(scene, band)
    facts = np.empty((scene.faces.shape[0], FACTS), np.float64)
    _load_all(scene.vertices.numpy(), scene.faces.numpy(), scene.voxel_size, facts)
    total = len(table.bricks)
    counts = np.zeros(total + 1, np.int64)
    distances, faces = np.empty((AT_ONCE, VOLUME), np.float32), np.empty((AT_ONCE, VOLUME), np.int32)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with tqdm(total=total, desc="distances", unit="brick", disable=not progress) as bar:
        for first in range(0, total, AT_ONCE):
            last = min(total, first + AT_ONCE)
            here = counts[first + 1 : last + 1]
            _measure(facts, *table, scene.resolution, band, first, get_num_threads(), distances, faces, here)
            starts = np.append(0, here.cumsum())
            part = np.empty(starts[-1], np.int16), np.empty(starts[-1], np.float32), np.empty(starts[-1], np.int32)
            _pack(distances, faces, starts, *part)
            parts.append(part)
            bar.update(last - first)
    offsets = counts.cumsum()
    local = _joined([part[0] for part in parts], np.int16)
    rows = lexicographic_rows(table.bricks, offsets, local, scene.resolution[1])
    cells = np.empty((len(local), 3), np.int32)
    _place_cells(table.bricks, offsets, local, rows, cells)
    distance, face = np.empty(len(local), np.float32), np.empty(len(local), np.int32)
    distance[rows] = _joined([part[1] for part in parts], np.float32)
    face[rows] = _joined([part[2] for part in parts], np.int32)
    return torch.from_numpy(cells), torch.from_numpy(distance), torch.from_numpy(face)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _load_all(vertices, faces, size, facts):
    for block in prange((len(faces) + 1023) // 1024):
        corners = np.empty((3, 3), np.float64)
        for face in range(block * 1024, min(len(faces), block * 1024 + 1024)):
            load_corners(vertices, faces, face, corners)
            corners_in_cells(corners, size, 1.0, corners)
            load_facts(corners, facts[face])


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _measure(facts, bricks, offsets, items, resolution, band, first, workers, distances, faces, counts):
    """Distances and faces of the bricks from `first` on, as many as `counts` has entries."""
    for worker in prange(workers):
        for b in range(worker, len(counts), workers):
            mine = items[offsets[first + b] : offsets[first + b + 1]]
            counts[b] = brick_distances(facts[mine], mine, bricks[first + b], resolution, band, distances[b], faces[b])


@njit(cache=True, nogil=True, parallel=True)
def _pack(distances, faces, starts, local, distance, face):
    """Leave out the cells beyond the band."""
    for b in prange(len(starts) - 1):
        row = starts[b]
        for at in range(VOLUME):
            if faces[b, at] >= 0:
                local[row], distance[row], face[row] = at, distances[b, at], faces[b, at]
                row += 1


@njit(cache=True, nogil=True, parallel=True)
def _place_cells(bricks, offsets, local, rows, cells):
    for b in prange(len(bricks)):
        for r in range(offsets[b], offsets[b + 1]):
            row, at = rows[r], local[r]
            cells[row, 0] = (bricks[b, 0] << BITS) + (at >> 2 * BITS)
            cells[row, 1] = (bricks[b, 1] << BITS) + ((at >> BITS) & (SIDE - 1))
            cells[row, 2] = (bricks[b, 2] << BITS) + (at & (SIDE - 1))
