"""Boundary edges walked through the bricks, compiled.

The whole walk is that of `_reference.walk`, step by step. It is cut where it enters a brick, and the state there is kept,
so that each brick can go on from its own entries and still meet the very same cells.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from voxgen.ops.voxelize._bricks import BITS, SIDE, BrickTable, brick_shape, group_by_brick
from voxgen.ops.voxelize._scan import upper_plane

from ._prepare import Problem

STATE = 3
"""Floats of a state besides the cell: for each axis the length along the edge at which the next grid plane is met."""


def bin_edges(problem: Problem, table: BrickTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Entries of boundary edges into the bricks of a table.

    Returns offsets (k + 1,) int64 of each brick's entries, and for each entry the edge (e,) int32, the first cell (e, 3)
    int32, and the walk's state there (e, 3) float64.
    """
    scene = problem.scene
    edges = problem.edges.numpy()
    mesh = (scene.vertices.numpy(), edges, scene.voxel_size, scene.resolution, scene.closed)
    count = _enter_bricks(mesh, np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 3), np.int32), np.empty((0, STATE)))
    keys, edge = np.empty(count, np.int64), np.empty(count, np.int32)
    cell, state = np.empty((count, 3), np.int32), np.empty((count, STATE))
    _enter_bricks(mesh, keys, edge, cell, state)
    entries = group_by_brick(keys, np.arange(count, dtype=np.int32), scene.resolution)
    known, entered = _flat(table.bricks, scene.resolution), _flat(entries.bricks, scene.resolution)
    row = np.minimum(np.searchsorted(known, entered), max(len(known) - 1, 0))
    kept = known[row] == entered  # an edge can leave the bricks of its triangles by rounding only
    sizes = np.zeros(len(known) + 1, np.int64)
    sizes[row[kept] + 1] = np.diff(entries.offsets)[kept]
    order = entries.items[np.repeat(kept, np.diff(entries.offsets))]
    return np.cumsum(sizes), edge[order], cell[order], state[order]


def _flat(bricks: np.ndarray, resolution: tuple[int, int, int]) -> np.ndarray:
    _, y, z = brick_shape(resolution)
    return (bricks[:, 0] * y + bricks[:, 1]) * z + bricks[:, 2]


@njit(cache=True, nogil=True, error_model="numpy")
def start_walk(vertices, edge, size, resolution, closed, cell, state, gap, step):
    """Set the walk to the first vertex of an edge and return the length of the edge."""
    length = 0.0
    for k in range(3):
        d = np.float64(vertices[edge[1], k]) - np.float64(vertices[edge[0], k])
        length += d * d
    length = np.sqrt(length)
    for k in range(3):
        p = np.float64(vertices[edge[0], k])
        direction = (np.float64(vertices[edge[1], k]) - p) / length
        cell[k] = int(np.floor(p / size[k]))
        if closed:
            cell[k] = max(0, min(cell[k], resolution[k] - 1))
        state[k], gap[k], step[k] = np.inf, np.inf, 0
        if direction != 0:
            step[k] = 1 if direction > 0 else -1
            ahead = cell[k] if direction > 0 else cell[k] - 1
            state[k] = (upper_plane(ahead, size[k]) - p) / direction
            gap[k] = size[k] / abs(direction)
    return length


@njit(cache=True, nogil=True, error_model="numpy")
def next_cell(length, resolution, closed, cell, state, gap, step):
    """Move to the next cell of a walk; False at its end."""
    while True:
        if state[0] < state[1]:
            k = 0 if state[0] < state[2] else 2
        else:
            k = 1 if state[1] < state[2] else 2
        if not state[k] <= length:
            return False
        state[k] += gap[k]
        after = cell[k] + step[k]
        if closed and not 0 <= after < resolution[k]:
            state[k] = np.inf  # rounding only: the mesh lies inside the box
            continue
        cell[k] = after
        return True


@njit(cache=True, nogil=True, error_model="numpy")
def _enter_bricks(mesh, keys, entered, cells, states):
    """Count the entries of all edges into bricks of the grid; where there is room, write them."""
    vertices, edges, size, resolution, closed = mesh
    by, bz = (resolution[1] + SIDE - 1) >> BITS, (resolution[2] + SIDE - 1) >> BITS
    cell, step = np.empty(3, np.int64), np.empty(3, np.int64)
    state, gap = np.empty(3), np.empty(3)
    count = 0
    for e in range(len(edges)):
        length = start_walk(vertices, edges[e], size, resolution, closed, cell, state, gap, step)
        last, going = -1, True
        while going:
            if 0 <= cell[0] < resolution[0] and 0 <= cell[1] < resolution[1] and 0 <= cell[2] < resolution[2]:
                key = ((cell[0] >> BITS) * by + (cell[1] >> BITS)) * bz + (cell[2] >> BITS)
                if key != last:
                    if len(keys) > 0:
                        keys[count], entered[count] = key, e
                        for k in range(3):
                            cells[count, k], states[count, k] = cell[k], state[k]
                    count += 1
                    last = key
            going = next_cell(length, resolution, closed, cell, state, gap, step)
    return count
