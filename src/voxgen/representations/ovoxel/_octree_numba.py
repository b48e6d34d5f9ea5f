"""Compiled walks over Z-order codes and octrees.

One thread on purpose: data loaders read files in forked processes and in threads, where numba's thread pools may abort the
process. Callers that want several cores give each chunk to a thread; the kernels hold no lock.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MAX_DEPTH = 10
"""Levels of inner nodes in a chunk of 1024 voxels a side."""


@njit(cache=True, nogil=True, error_model="numpy")
def first_new_level(code: int, previous: int, depth: int) -> int:
    """The level of the deepest node that two different leaves share; the root is level 0."""
    level = depth - 1
    difference = (code ^ previous) >> 3
    while difference:
        level -= 1
        difference >>= 3
    return level


@njit(cache=True, nogil=True, error_model="numpy")
def count_nodes(codes: np.ndarray, leaf_offsets: np.ndarray, depth: int, node_offsets: np.ndarray) -> None:
    """Fill (chunks + 1,) bounds of the chunks' nodes."""
    total = np.int64(0)
    for chunk in range(len(leaf_offsets) - 1):
        start = leaf_offsets[chunk]
        total += depth
        for i in range(start + 1, leaf_offsets[chunk + 1]):
            total += depth - 1 - first_new_level(codes[i], codes[i - 1], depth)
        node_offsets[chunk + 1] = total


@njit(cache=True, nogil=True, error_model="numpy")
def fill_nodes(codes: np.ndarray, leaf_offsets: np.ndarray, depth: int, nodes: np.ndarray) -> None:
    """Fill the nodes of all chunks in pre-order."""
    path = np.zeros(MAX_DEPTH, np.int64)
    count = np.int64(0)
    for chunk in range(len(leaf_offsets) - 1):
        start = leaf_offsets[chunk]
        for i in range(start, leaf_offsets[chunk + 1]):
            level = -1
            if i > start:
                level = first_new_level(codes[i], codes[i - 1], depth)
                nodes[path[level]] |= 1 << (codes[i] >> 3 * (depth - 1 - level) & 7)
            for inner in range(level + 1, depth):
                path[inner] = count
                nodes[count] = 1 << (codes[i] >> 3 * (depth - 1 - inner) & 7)
                count += 1


@njit(cache=True, nogil=True, error_model="numpy")
def read_leaves(nodes: np.ndarray, depth: int, codes: np.ndarray) -> int:
    """Write the leaves' codes and return their number, or a negative number that names the damage (see `decode_octree`)."""
    if len(nodes) == 0:
        return -1
    if nodes[0] == 0:
        return -2
    left = np.zeros(MAX_DEPTH, np.int64)  # children still to visit, by level
    prefix = np.zeros(MAX_DEPTH + 1, np.int64)  # code of the node on the path, by level
    left[0] = nodes[0]
    level, position, count = 0, 1, 0
    while level >= 0:
        if left[level] == 0:
            level -= 1
            continue
        child = 0
        while not left[level] >> child & 1:
            child += 1
        left[level] ^= 1 << child
        code = prefix[level] << 3 | child
        if level == depth - 1:
            if count == len(codes):
                return -4
            codes[count] = code
            count += 1
        else:
            if position == len(nodes):
                return -1
            if nodes[position] == 0:
                return -2
            level += 1
            prefix[level] = code
            left[level] = nodes[position]
            position += 1
    return count if position == len(nodes) else -3
