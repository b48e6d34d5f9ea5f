"""Z-buffer in compiled code with threads.

Vertices are projected once, to float32 pixels; that is enough to throw away triangles outside the image and the many whose
bounding box holds no pixel centre. What is left is sorted into bands of rows, and each band is drawn by one thread with the exact
test in float64. A band draws its faces in order of their index, whatever the number of threads, so results never change.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from ._numba_bounds import face_bounds, flagged_screen
from ._numba_pixel import NOTHING, depth_in_face, load_face
from ._numba_span import WIDE, orientation, row_span

_SLAB = 1 << 20  # faces sorted into bands at a time: bounds the memory of the lists
_CHUNK = 1 << 14  # faces that one thread sorts in one go
_MAX_BANDS = 128


def visible_faces(positions: Tensor, faces: Tensor, height: int, width: int, behind: Tensor | None) -> Tensor:
    """(b, v, 4), (f, 3) → (b, h, w) int32 index of the nearest face, -1 for none."""
    triangles = faces.contiguous().numpy()
    result = torch.full((len(positions), height, width), -1, dtype=torch.int32)
    for i, view in enumerate(positions):
        previous = None if behind is None else behind[i].contiguous().numpy()
        _one_view(view.contiguous().numpy(), triangles, previous, result[i].numpy())
    return result


def _one_view(positions: Any, faces: Any, behind: Any, face_id: Any) -> None:
    height, width = face_id.shape
    screen = np.empty((len(positions), 2), np.float32)
    flagged_screen(positions, height, width, screen)
    depth = np.full((height, width), NOTHING)
    peel = behind is not None
    lowest = np.empty((height, width) if peel else (1, 1))
    previous = behind if peel else np.empty((1, 1), np.int32)
    if peel:
        _depth_of_faces(positions, faces, previous, lowest)
    rows = max(8, math.ceil(height / _MAX_BANDS))
    bands = math.ceil(height / rows)
    for start in range(0, len(faces), _SLAB):
        stop = min(start + _SLAB, len(faces))
        counts = np.zeros((bands, math.ceil((stop - start) / _CHUNK)), np.int64)
        kept = np.empty(stop - start, np.int32)
        _count(positions, screen, faces, start, stop, rows, height, width, kept, counts)
        ends = np.cumsum(counts).reshape(counts.shape)
        lists = np.empty(int(ends[-1, -1]), np.int32)
        _fill(positions, screen, faces, start, stop, rows, height, width, kept, ends - counts, lists)
        bounds = np.concatenate((np.zeros(1, np.int64), ends[:, -1]))
        _draw(positions, screen, faces, lists, bounds, rows, get_num_threads(), peel, previous, lowest, depth, face_id)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _depth_of_faces(positions, faces, face_id, depth):
    """The depth of a given face at each pixel; infinite where there is none, so that nothing lies behind it."""
    height, width = face_id.shape
    for row in prange(height):
        for column in range(width):
            depth[row, column] = np.inf
            if face_id[row, column] >= 0:
                corners = load_face(positions, faces, face_id[row, column], height, width)
                d = depth_in_face(corners, row, column)
                if d != NOTHING:
                    depth[row, column] = d


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(positions, screen, faces, start, stop, rows, height, width, kept, counts):
    """Keep the faces whose bounding box holds a pixel centre (`kept`, relative to start), and count them for each band and chunk."""
    for chunk in prange(counts.shape[1]):
        first, last = start + chunk * _CHUNK, min(start + (chunk + 1) * _CHUNK, stop)
        n = first - start
        for face in range(first, last):
            top, bottom, left, right = face_bounds(positions, screen, faces, face, height, width)
            if top <= bottom and left <= right:
                kept[n] = face
                n += 1
                for band in range(top // rows, bottom // rows + 1):
                    counts[band, chunk] += 1
        if n < last - start:
            kept[n] = -1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill(positions, screen, faces, start, stop, rows, height, width, kept, starts, lists):
    """Write the kept faces into the list of each band they touch, in order of their index."""
    for chunk in prange(starts.shape[1]):
        first, last = chunk * _CHUNK, min((chunk + 1) * _CHUNK, stop - start)
        position = starts[:, chunk].copy()
        for n in range(first, last):
            face = kept[n]
            if face < 0:
                break
            top, bottom, _, _ = face_bounds(positions, screen, faces, face, height, width)
            for band in range(top // rows, bottom // rows + 1):
                lists[position[band]] = face
                position[band] += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _draw(positions, screen, faces, lists, bounds, rows, threads, peel, previous, lowest, depth, face_id):
    """Draw each band; thread t takes bands t, t + threads, …, because neighbouring bands cost about the same."""
    height, width = face_id.shape
    bands = len(bounds) - 1
    for thread in prange(threads):
        for band in range(thread, bands, threads):
            for n in range(bounds[band], bounds[band + 1]):
                face = lists[n]
                top, bottom, left, right = face_bounds(positions, screen, faces, face, height, width)
                corners = load_face(positions, faces, face, height, width)
                wide = right - left >= WIDE
                side = orientation(corners, (top + bottom) // 2, (left + right) // 2) if wide else 0.0
                for row in range(max(top, band * rows), min(bottom, band * rows + rows - 1) + 1):
                    first, last = row_span(corners, side, row, left, right) if side != 0 else (left, right)
                    for column in range(first, last + 1):
                        d = depth_in_face(corners, row, column)
                        # an earlier slab or list entry has a lower index, so it keeps an equal depth
                        if not d < depth[row, column]:
                            continue
                        if peel and not (d > lowest[row, column] or (d == lowest[row, column] and face > previous[row, column])):
                            continue
                        depth[row, column] = d
                        face_id[row, column] = face
