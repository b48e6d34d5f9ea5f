"""A hash table of the edges that matter, filled by one pass over the faces: no sort of all edges.

A row of the table is an edge (its lower vertex in the upper half of 64 bits, its higher one in the lower; -1 for none), then how many
faces have it, from bit 40 on, above the sum of the vertices opposite to it. One row is one access to memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

_ONE = np.int64(1 << 40)
_MANY = np.int64(16)
"""Faces of an edge are counted up to here, which is many enough to be no pair."""


def empty_table(count: int) -> Any:
    """Slots for that many edges: a power of two, less than half of them used."""
    table = np.zeros((1 << (2 * count + 1).bit_length(), 2), np.int64)
    table[:, 0] = -1
    return table


@njit(cache=True, nogil=True, error_model="numpy")
def _slot(key, table):
    """Where an edge is, or the empty slot where it belongs."""
    mask = np.int64(len(table) - 1)
    hashed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(hashed >> np.uint64(32)) & mask
    while table[slot, 0] != key and table[slot, 0] >= 0:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True, error_model="numpy")
def _key(a, b):
    low, high = (a, b) if a < b else (b, a)
    return np.int64(low) << 32 | np.int64(high)


@njit(cache=True, nogil=True, error_model="numpy")
def mark_vertices(rows, marked):
    """Set a bit for each end of an edge."""
    for n in range(len(rows)):
        for end in range(3, 5):
            vertex = np.uint64(rows[n, end])
            marked[vertex >> np.uint64(6)] |= np.uint64(1) << (vertex & np.uint64(63))


@njit(cache=True, nogil=True, error_model="numpy")
def insert_edges(rows, table, slots):
    """Make a slot for each edge."""
    for n in range(len(rows)):
        key = _key(rows[n, 3], rows[n, 4])
        slots[n] = _slot(key, table)
        table[slots[n], 0] = key


@njit(cache=True, nogil=True, error_model="numpy")
def scan_faces(faces, marked, table):
    """Count the faces of each edge, and add up the vertices opposite to it. Faces that name a vertex twice are no faces."""
    for face in range(len(faces)):
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        a, b, c = _is_marked(i, marked), _is_marked(j, marked), _is_marked(k, marked)
        if a + b + c < 2 or i == j or j == k or k == i:
            continue
        if a and b:
            _add(_key(i, j), k, table)
        if b and c:
            _add(_key(j, k), i, table)
        if c and a:
            _add(_key(k, i), j, table)


@njit(cache=True, nogil=True, error_model="numpy")
def _is_marked(vertex, marked):
    v = np.uint64(vertex)
    return (marked[v >> np.uint64(6)] >> (v & np.uint64(63))) & np.uint64(1) != 0


@njit(cache=True, nogil=True, error_model="numpy")
def _add(key, vertex, table):
    slot = _slot(key, table)
    if table[slot, 0] == key and table[slot, 1] < _MANY * _ONE:
        table[slot, 1] += _ONE + vertex


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def other_vertex(slots, table, opposite, across):
    """Of the two vertices opposite to an edge, the one that is not the owner's; -1 unless there are two."""
    for n in prange(len(slots)):
        found = table[slots[n], 1]
        across[n] = found % _ONE - opposite[n] if found // _ONE == 2 else -1
