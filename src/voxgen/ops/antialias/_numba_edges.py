"""A hash table of the edges that matter, filled by one pass over the faces: no sort of all edges."""

from __future__ import annotations

import numpy as np
from numba import njit, prange


def table_size(count: int) -> int:
    """Slots for that many edges: a power of two, less than half of them used."""
    return 1 << (2 * count + 1).bit_length()


@njit(cache=True, nogil=True, error_model="numpy")
def _slot(key, keys):
    """Where an edge is, or the empty slot where it belongs."""
    mask = np.int64(len(keys) - 1)
    hashed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(hashed >> np.uint64(32)) & mask
    while keys[slot] != key and keys[slot] >= 0:
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
def insert_edges(rows, keys, slots):
    """Make a slot for each edge."""
    for n in range(len(rows)):
        key = _key(rows[n, 3], rows[n, 4])
        slots[n] = _slot(key, keys)
        keys[slots[n]] = key


@njit(cache=True, nogil=True, error_model="numpy")
def scan_faces(faces, marked, keys, counts, sums):
    """Count the faces of each edge, and add up the vertices opposite to it. Faces that name a vertex twice are no faces."""
    for face in range(len(faces)):
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        a, b, c = _is_marked(i, marked), _is_marked(j, marked), _is_marked(k, marked)
        if a + b + c < 2 or i == j or j == k or k == i:
            continue
        if a and b:
            _add(_key(i, j), k, keys, counts, sums)
        if b and c:
            _add(_key(j, k), i, keys, counts, sums)
        if c and a:
            _add(_key(k, i), j, keys, counts, sums)


@njit(cache=True, nogil=True, error_model="numpy")
def _is_marked(vertex, marked):
    v = np.uint64(vertex)
    return (marked[v >> np.uint64(6)] >> (v & np.uint64(63))) & np.uint64(1) != 0


@njit(cache=True, nogil=True, error_model="numpy")
def _add(key, vertex, keys, counts, sums):
    slot = _slot(key, keys)
    if keys[slot] == key:
        counts[slot] += 1
        sums[slot] += vertex


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def other_vertex(slots, counts, sums, opposite, across):
    """Of the two vertices opposite to an edge, the one that is not the owner's; -1 unless there are two."""
    for n in prange(len(slots)):
        across[n] = sums[slots[n]] - opposite[n] if counts[slots[n]] == 2 else -1
