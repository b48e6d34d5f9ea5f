"""What hangs together across edges: pieces of faces, and fans of faces around a vertex (numba)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]


@numba.njit(cache=True, nogil=True)
def _find(parent: Array, item: int) -> int:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@numba.njit(cache=True, nogil=True)
def _join(parent: Array, one: int, other: int) -> None:
    one, other = _find(parent, one), _find(parent, other)
    if one < other:
        parent[other] = one
    else:
        parent[one] = other


@numba.njit(cache=True, nogil=True)
def link_across_edges(half_edges: Array, starts: Array, counts: Array, forward: Array) -> tuple[Array, Array]:
    """Join the faces at each edge, and their corners at its two ends.

    Args:
        half_edges, starts, counts, forward: as in `EdgeTable`.
    Returns:
        piece: (f,) int64, the lowest face that each face hangs together with through edges.
        fan: (3 f,) int64, the lowest corner that each corner hangs together with through edges at its vertex.
    """
    corners = len(half_edges)
    piece = np.arange(corners // 3)
    fan = np.arange(corners)
    for edge in range(len(starts)):
        first = int(starts[edge])
        h = int(half_edges[first])
        h_next = h + 1 - 3 * (h % 3 == 2)
        for i in range(first + 1, first + int(counts[edge])):
            g = int(half_edges[i])
            g_next = g + 1 - 3 * (g % 3 == 2)
            _join(piece, h // 3, g // 3)
            if forward[i] == forward[first]:
                _join(fan, h, g)
                _join(fan, h_next, g_next)
            else:
                _join(fan, h, g_next)
                _join(fan, h_next, g)
    for face in range(len(piece)):
        piece[face] = _find(piece, face)
    for corner in range(corners):
        fan[corner] = _find(fan, corner)
    return piece, fan
