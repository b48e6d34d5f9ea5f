"""Compiled CPU engine: an edge for each pair of pixels, then only these edges looked up among the faces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ._numba_edges import empty_table, insert_edges, mark_vertices, other_vertex, scan_faces
from ._query import EDGE_ON, HIGHEST, LOWEST, Query

NONE = np.int8(-1)


def find(query: Query) -> Tensor:
    """See `Query`."""
    positions, faces = query.positions.contiguous().numpy(), query.faces.contiguous().numpy()
    ids, depth = query.face_id.contiguous().numpy(), query.depth.contiguous().numpy()
    frame = tuple(query.window)
    choice = np.full((2, *ids.shape), NONE)
    _choose(positions, faces, ids, depth, frame, choice)
    flat = np.flatnonzero(choice >= 0)
    rows = np.empty((len(flat), 5), np.int64)
    opposite = np.empty(len(flat), np.int32)
    _describe(flat, choice.ravel(), faces, ids.ravel(), query.window.columns, rows, opposite)
    if query.opposite is None:
        across = _across(rows, opposite, faces, positions.shape[1])
    else:
        across = np.empty(len(flat), np.int32)
        _read_across(flat, choice.ravel(), ids.ravel(), query.window.columns, query.opposite.contiguous().numpy(), across)
    kept = np.empty(len(flat), np.bool_)
    _keep_outlines(positions, rows, opposite, across, frame, kept)
    return torch.from_numpy(rows[kept])


def _across(rows: Any, opposite: Any, faces: Any, vertices: int) -> Any:
    """(n,) int32 the vertex across each edge, -1 where no face or more than one is there."""
    marked = np.zeros(vertices // 64 + 1, np.uint64)
    mark_vertices(rows, marked)
    table, slots = empty_table(len(rows)), np.empty(len(rows), np.int64)
    insert_edges(rows, table, slots)
    scan_faces(faces, marked, table)
    across = np.empty(len(rows), np.int32)
    other_vertex(slots, table, opposite, across)
    return across


@njit(cache=True, nogil=True, error_model="numpy")
def _corner(positions, view, vertex, px, py, half_width, half_height, axis):
    """A vertex in pixels times w with the centre (px, py) as origin: along the direction of the pair, beside it, and w."""
    w = np.float64(positions[view, vertex, 3])
    x = (np.float64(positions[view, vertex, 0]) + w) * half_width - px * w
    y = (np.float64(positions[view, vertex, 1]) + w) * half_height - py * w
    return (x, y, w) if axis == 0 else (y, x, w)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _choose(positions, faces, ids, depth, frame, choice):
    """Of the owner's edges, the one that counts: its number, plus 3 if the second pixel owns the pair."""
    views, rows, columns = ids.shape
    half_width, half_height = frame[1] / 2, frame[0] / 2
    for line in prange(views * rows):
        view, row = line // rows, line % rows
        source = view if len(positions) > 1 else 0
        for axis in range(2):
            if axis == 1 and row == rows - 1:
                continue
            for column in range(columns - 1 + axis):
                id0, id1 = ids[view, row, column], ids[view, row + axis, column + 1 - axis]
                if id0 == id1:
                    continue
                second = 0
                if id0 < 0 or (id1 >= 0 and not depth[view, row, column] <= depth[view, row + axis, column + 1 - axis]):
                    second = 1
                face = id1 if second else id0
                px = column + second * (1 - axis) + frame[3] + 0.5
                py = row + second * axis + frame[2] + 0.5
                place = (px, py, half_width, half_height, axis)
                u0, v0, w0 = _corner(positions, source, faces[face, 0], *place)
                u1, v1, w1 = _corner(positions, source, faces[face, 1], *place)
                u2, v2, w2 = _corner(positions, source, faces[face, 2], *place)
                forward = 1.0 - 2.0 * second
                best, edge, steep = -np.inf, -1, False
                d, s = _crossing(u1, v1, w1, u2, v2, w2, forward, axis)
                if d > best:
                    best, edge, steep = d, 0, s
                d, s = _crossing(u2, v2, w2, u0, v0, w0, forward, axis)
                if d > best:
                    best, edge, steep = d, 1, s
                d, s = _crossing(u0, v0, w0, u1, v1, w1, forward, axis)
                if d > best:
                    best, edge, steep = d, 2, s
                if steep and LOWEST < best < HIGHEST:
                    choice[axis, view, row, column] = edge + 3 * second


@njit(cache=True, nogil=True, error_model="numpy")
def _crossing(ua, va, wa, ub, vb, wb, forward, axis):
    """How far along an edge crosses the line between the centres, -inf if it does not; and whether it is steep."""
    if (va < 0) == (vb < 0):
        return -np.inf, False
    denominator = wa * vb - wb * va
    if denominator == 0 or (denominator > 0) != (vb > va):
        return -np.inf, False
    rise, run = abs(denominator), abs(wa * ub - wb * ua)
    return forward * ((ua * vb - va * ub) / denominator), (rise >= run if axis == 0 else rise > run)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _describe(flat, choice, faces, ids, columns, rows, opposite):
    """The rows of the answer for all pairs with an edge, and the corner opposite to it."""
    pixels = len(ids)
    for n in prange(len(flat)):
        axis, pixel = flat[n] // pixels, flat[n] % pixels
        edge, second = choice[flat[n]] % 3, choice[flat[n]] // 3
        face = ids[pixel + second * (columns if axis else 1)]
        rows[n, 0], rows[n, 1], rows[n, 2] = pixel, axis, second
        rows[n, 3], rows[n, 4] = faces[face, (edge + 1) % 3], faces[face, (edge + 2) % 3]
        opposite[n] = faces[face, edge]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _read_across(flat, choice, ids, columns, table, across):
    """The vertex across each edge, from a table."""
    pixels = len(ids)
    for n in prange(len(flat)):
        axis, pixel = flat[n] // pixels, flat[n] % pixels
        edge, second = choice[flat[n]] % 3, choice[flat[n]] // 3
        across[n] = table[ids[pixel + second * (columns if axis else 1)], edge]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _keep_outlines(positions, rows, opposite, across, frame, kept):
    """Whether the triangle across lies on the side of the owner, or there is none."""
    half_width, half_height = frame[1] / 2, frame[0] / 2
    for n in prange(len(rows)):
        if across[n] < 0:
            kept[n] = True
            continue
        pixel, axis, second = rows[n, 0], rows[n, 1], rows[n, 2]
        view, row, column = pixel // (frame[4] * frame[5]), pixel // frame[5] % frame[4], pixel % frame[5]
        source = view if len(positions) > 1 else 0
        place = (column + second * (1 - axis) + frame[3] + 0.5, row + second * axis + frame[2] + 0.5, half_width, half_height, axis)
        ua, va, wa = _corner(positions, source, rows[n, 3], *place)
        ub, vb, wb = _corner(positions, source, rows[n, 4], *place)
        line = (va * wb - wa * vb, wa * ub - ua * wb, ua * vb - va * ub)
        there = _side(line, _corner(positions, source, across[n], *place))
        kept[n] = there == 0 or (_side(line, _corner(positions, source, opposite[n], *place)) > 0) == (there > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _side(line, corner):
    """On which side of a line a vertex lies; 0 on it, up to rounding."""
    one, two, three = line[0] * corner[0], line[1] * corner[1], line[2] * corner[2]
    side = one + two + three
    return 0.0 if math.fabs(side) <= EDGE_ON * (math.fabs(one) + math.fabs(two) + math.fabs(three)) else side
