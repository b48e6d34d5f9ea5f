"""Occupancy of a chunk as a depth-first octree: one byte for each inner node, nothing for leaves.

Bit c of a byte says that child c exists; c holds the child's Z-order bits, x highest. Nodes come in pre-order, which is the
order in which ascending Z-order codes of the leaves first reach them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from voxgen.core.errors import FileFormatError


class Octrees(NamedTuple):
    """Nodes of all chunks, one chunk after another.

    nodes: (m,) uint8.   offsets: (chunks + 1,) int64, where the nodes of each chunk start.
    """

    nodes: np.ndarray
    offsets: np.ndarray


def encode_octrees(codes: np.ndarray, leaf_offsets: np.ndarray, depth: int) -> Octrees:
    """Octrees of chunks.

    Args:
        codes: (n,) int32 Z-order codes, ascending and unique inside each chunk, below 8 ** depth.
        leaf_offsets: (chunks + 1,) int64, where the codes of each chunk start; no chunk is empty.
        depth: levels of inner nodes, log2 of the chunk's side.
    """
    from ._octree_numba import count_nodes, fill_nodes

    offsets = np.zeros(len(leaf_offsets), np.int64)
    count_nodes(codes, leaf_offsets, depth, offsets)
    nodes = np.empty(int(offsets[-1]), np.uint8)
    fill_nodes(codes, leaf_offsets, depth, nodes)
    return Octrees(nodes, offsets)


def decode_octree(where: str, nodes: bytes, depth: int, limit: int) -> np.ndarray:
    """The leaves of one chunk's octree: (n,) int32 Z-order codes, ascending.

    Args:
        where: what the octree is, first words of the message.
        limit: the most leaves that the octree may have.
    Raises:
        FileFormatError: a node without children, nodes missing or left over, more leaves than `limit`.
    """
    from ._octree_numba import read_leaves

    data = np.frombuffer(nodes, np.uint8)
    codes = np.empty(min(limit, 8 * len(data)), np.int32)
    count = int(read_leaves(data, depth, codes))
    problems = {
        -1: "its nodes stop before the tree is complete",
        -2: "it has a node without children",
        -3: "nodes are left over after the tree is complete",
        -4: f"it has more leaves than the {limit} voxels that the header leaves for it",
    }
    if count < 0:
        raise FileFormatError(f"{where}: the octree is damaged: {problems[count]}.")
    return codes[:count].copy()
