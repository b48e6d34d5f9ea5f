"""The filters of .vxz files: each voxel's bytes as differences to those of a voxel that comes before it.

A filter is a plan: for each leaf, in the order of its chunk, the earlier leaf that predicts it and the row of the stream
in which the difference stands. Differences are taken modulo 256, channel by channel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FILTERS = ("none", "parent", "neighbor")


class Plan(NamedTuple):
    """row: (n,) int64, where the difference of each leaf stands.   predictor: (n,) int64 earlier leaf, -1 for none."""

    row: np.ndarray
    predictor: np.ndarray


def parent_plan(codes: np.ndarray, leaf_offsets: np.ndarray, nodes: np.ndarray, depth: int) -> Plan:
    """Filter "parent": a node has the value of its first child; other children are predicted by the sibling before them.

    A node reserves the rows of its second to last child when it is entered, so rows follow the tree and not the leaves.

    Args:
        codes, leaf_offsets, depth: as in `encode_octrees`.
        nodes: (m,) uint8 of the same chunks.
    """
    from ._filters_numba import fill_parent_plan

    plan = Plan(np.empty(len(codes), np.int64), np.empty(len(codes), np.int64))
    fill_parent_plan(codes, leaf_offsets, nodes, depth, plan.row, plan.predictor)
    return plan


def neighbor_plan(keys: np.ndarray, leaves: np.ndarray, chunk_size: int) -> Plan:
    """Filter "neighbor": a voxel is predicted by one of its seven lower neighbours in the same chunk.

    Of those that exist the last counts in the order -x, -y, -z, -x-y, -x-z, -y-z, -x-y-z. Rows are those of the leaves.

    Args:
        keys: (n,) int64 voxels of all chunks as x << 32 | y << 16 | z, ascending.
        leaves: (n,) int64, the leaf that each key belongs to.
    """
    from ._filters_numba import fill_neighbor_plan

    predictor = np.full(len(keys), -1, np.int64)
    fill_neighbor_plan(keys, leaves, chunk_size - 1, predictor)
    return Plan(np.arange(len(keys), dtype=np.int64), predictor)


def subtract(values: np.ndarray, plan: Plan) -> np.ndarray:
    """(n, c) uint8 values of the leaves → (n, c) uint8 rows of the stream."""
    from ._filters_numba import fill_differences

    rows = np.empty_like(values)
    fill_differences(values, plan.row, plan.predictor, rows)
    return rows


def add(rows: np.ndarray, plan: Plan) -> np.ndarray:
    """Inverse of `subtract`."""
    from ._filters_numba import fill_sums

    values = np.empty_like(rows)
    fill_sums(rows, plan.row, plan.predictor, values)
    return values
