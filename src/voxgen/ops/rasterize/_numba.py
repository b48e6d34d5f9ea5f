"""Z-buffer in compiled code with threads.

Vertices are projected once, to float32 pixels; that is enough to throw away triangles outside the image and the many that hold no
pixel centre. What is left is sorted into bands of rows, and each band is drawn by one thread with the exact
test in float64. A band draws its faces in order of their index, whatever the number of threads, so results never change.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from ._numba_bounds import face_bounds, flagged_screen
from ._numba_pixel import NOTHING, depth_in_face, load_face
from ._numba_span import WIDE, orientation, row_span
from ._query import Query, View, Window

_SLAB = 1 << 20  # faces sorted into bands at a time: bounds the memory of the lists
_CHUNK = 1 << 14  # faces that one thread sorts in one go
_MAX_BANDS = 128


def visible_faces(query: Query) -> Tensor:
    """See `Query`: (b, rows, columns) int32 index of the nearest face, -1 for none."""
    faces = query.faces.contiguous()
    window = query.window
    result = torch.full((len(query.parts), window.rows, window.columns), -1, dtype=torch.int32)
    for view, face_id in zip(query.views(), result, strict=True):
        _one_view(view, faces, window, face_id)
    return result


def _one_view(view: View, face_rows: Tensor, window: Window, result: Tensor) -> None:
    positions, faces, face_id = view.positions.contiguous().numpy(), face_rows.numpy(), result.numpy()
    frame = tuple(window)
    screen = np.empty((len(positions), 2), np.float32)
    flagged_screen(positions, window.height, window.width, screen)
    depth = np.full((window.rows, window.columns), NOTHING)
    peel = view.lowest_depth is not None and view.lowest_id is not None
    lowest = view.lowest_depth.contiguous().numpy() if view.lowest_depth is not None else np.empty((1, 1))
    previous = view.lowest_id.contiguous().numpy() if view.lowest_id is not None else np.empty((1, 1), np.int32)
    rows = max(8, math.ceil(window.rows / _MAX_BANDS))
    bands = math.ceil(window.rows / rows)
    end = view.first + view.count
    for start in range(view.first, end, _SLAB):
        stop = min(start + _SLAB, end)
        counts = np.zeros((bands, math.ceil((stop - start) / _CHUNK)), np.int64)
        kept, boxes = np.empty(stop - start, np.int32), np.empty((stop - start, 4), np.int16)
        _count(positions, screen, faces, start, stop, rows, frame, kept, boxes, counts)
        ends = np.cumsum(counts).reshape(counts.shape)
        lists, list_boxes = np.empty(int(ends[-1, -1]), np.int32), np.empty((int(ends[-1, -1]), 4), np.int16)
        _fill(kept, boxes, start, stop, rows, window.top, ends - counts, lists, list_boxes)
        bounds = np.concatenate((np.zeros(1, np.int64), ends[:, -1]))
        _draw(positions, faces, lists, list_boxes, bounds, rows, frame, get_num_threads(), peel, previous, lowest, depth, face_id)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(positions, screen, faces, start, stop, rows, frame, kept, boxes, counts):
    """Keep the faces that may cover a pixel centre (`kept`), with their bounds, and count them for each band and chunk."""
    for chunk in prange(counts.shape[1]):
        first, last = start + chunk * _CHUNK, min(start + (chunk + 1) * _CHUNK, stop)
        n = first - start
        for face in range(first, last):
            top, bottom, left, right = face_bounds(positions, screen, faces, face, frame)
            if top <= bottom and left <= right:
                kept[n] = face
                boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = top, bottom, left, right
                n += 1
                for band in range((top - frame[2]) // rows, (bottom - frame[2]) // rows + 1):
                    counts[band, chunk] += 1
        if n < last - start:
            kept[n] = -1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill(kept, boxes, start, stop, rows, top, starts, lists, list_boxes):
    """Write the kept faces into the list of each band they touch, in order of their index."""
    for chunk in prange(starts.shape[1]):
        first, last = chunk * _CHUNK, min((chunk + 1) * _CHUNK, stop - start)
        position = starts[:, chunk].copy()
        for n in range(first, last):
            face = kept[n]
            if face < 0:
                break
            for band in range((boxes[n, 0] - top) // rows, (boxes[n, 1] - top) // rows + 1):
                at = position[band]
                lists[at] = face
                list_boxes[at, 0], list_boxes[at, 1] = boxes[n, 0], boxes[n, 1]
                list_boxes[at, 2], list_boxes[at, 3] = boxes[n, 2], boxes[n, 3]
                position[band] = at + 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _draw(positions, faces, lists, boxes, bounds, rows, frame, threads, peel, previous, lowest, depth, face_id):
    """Draw each band; thread t takes bands t, t + threads, …, because neighbouring bands cost about the same."""
    height, width, start_row, start_column, count_rows, _ = frame
    bands = len(bounds) - 1
    for thread in prange(threads):
        for band in range(thread, bands, threads):
            low, high = start_row + band * rows, start_row + min(band * rows + rows, count_rows) - 1
            for n in range(bounds[band], bounds[band + 1]):
                face = lists[n]
                top, bottom, left, right = np.int64(boxes[n, 0]), np.int64(boxes[n, 1]), np.int64(boxes[n, 2]), np.int64(boxes[n, 3])
                corners = load_face(positions, faces, face, height, width)
                wide = right - left >= WIDE
                side = orientation(corners, (top + bottom) // 2, (left + right) // 2) if wide else 0.0
                for row in range(max(top, low), min(bottom, high) + 1):
                    first, last = row_span(corners, side, row, left, right) if side != 0 else (left, right)
                    y = row - start_row
                    for column in range(first, last + 1):
                        d = depth_in_face(corners, row, column)
                        # an earlier slab or list entry has a lower index, so it keeps an equal depth
                        x = column - start_column
                        if not d < depth[y, x]:
                            continue
                        if peel and not (d > lowest[y, x] or (d == lowest[y, x] and face > previous[y, x])):
                            continue
                        depth[y, x] = d
                        face_id[y, x] = face
