"""Compiled passes of the file filters. One thread on purpose, see `_octree_numba`."""

from __future__ import annotations

import numpy as np
from numba import njit

from ._octree_numba import MAX_DEPTH, first_new_level


@njit(cache=True, nogil=True, error_model="numpy")
def fill_parent_plan(
    codes: np.ndarray, leaf_offsets: np.ndarray, nodes: np.ndarray, depth: int, row: np.ndarray, predictor: np.ndarray
) -> None:
    base = np.zeros(MAX_DEPTH, np.int64)  # row of the second child of the node on the path, by level
    born = np.zeros(MAX_DEPTH, np.int64)  # children of that node seen so far
    sibling = np.zeros(MAX_DEPTH, np.int64)  # first leaf of the last of them
    node = np.int64(0)
    for chunk in range(len(leaf_offsets) - 1):
        start = leaf_offsets[chunk]
        free = start + 1
        for i in range(start, leaf_offsets[chunk + 1]):
            level = -1
            row[i], predictor[i] = start, -1
            if i > start:
                level = first_new_level(codes[i], codes[i - 1], depth)
                row[i], predictor[i] = base[level] + born[level] - 1, sibling[level]
                born[level] += 1
                sibling[level] = i
            for inner in range(level + 1, depth):
                base[inner], born[inner], sibling[inner] = free, 1, i
                children = nodes[node]
                while children:
                    children &= children - 1
                    free += 1
                free -= 1
                node += 1


@njit(cache=True, nogil=True, error_model="numpy")
def fill_neighbor_plan(keys: np.ndarray, leaves: np.ndarray, mask: int, predictor: np.ndarray) -> None:
    """Neighbours at one offset lie at one distance in the ascending keys, so a second finger that only moves up finds them."""
    for axes in (7, 3, 5, 6, 1, 2, 4):  # bits 4, 2, 1 are x, y, z; the strongest neighbour first
        dx, dy, dz = axes >> 2 & 1, axes >> 1 & 1, axes & 1
        distance = dx << 32 | dy << 16 | dz
        finger = 0
        for i in range(len(keys)):
            key = keys[i]
            if predictor[leaves[i]] >= 0:
                continue
            # in the first layer of a chunk the neighbour lies in another chunk
            if (dx and not key >> 32 & mask) or (dy and not key >> 16 & mask) or (dz and not key & mask):
                continue
            while keys[finger] < key - distance:
                finger += 1
            if keys[finger] == key - distance:
                predictor[leaves[i]] = leaves[finger]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_differences(values: np.ndarray, row: np.ndarray, predictor: np.ndarray, rows: np.ndarray) -> None:
    for i in range(len(values)):
        for c in range(values.shape[1]):
            before = values[predictor[i], c] if predictor[i] >= 0 else np.uint8(0)
            rows[row[i], c] = values[i, c] - before


@njit(cache=True, nogil=True, error_model="numpy")
def fill_sums(rows: np.ndarray, row: np.ndarray, predictor: np.ndarray, values: np.ndarray) -> None:
    for i in range(len(values)):
        for c in range(values.shape[1]):
            before = values[predictor[i], c] if predictor[i] >= 0 else np.uint8(0)
            values[i, c] = rows[row[i], c] + before
