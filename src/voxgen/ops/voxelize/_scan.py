"""Crossings of one triangle with grid edges inside a box of cells, compiled.

The arithmetic is that of `_reference.edge_crossings` (which see), operation by operation, so that cells agree exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def cell_index(position, size, cells):
    """The cell of a position along one axis, kept inside the grid."""
    return max(0, min(int(position / size), cells - 1))


@njit(cache=True, nogil=True, error_model="numpy")
def upper_plane(cell, size):
    """Position of the upper plane of a cell, rounded to float32."""
    return np.float64(np.float32((cell + 1) * size))


@njit(cache=True, nogil=True, error_model="numpy")
def cut(corners, p, q, along, u, v, position):
    """Coordinates u and v of the point of the segment p q that lies at `position` along an axis."""
    start = corners[p, along]
    share = max(0.0, min((position - start) / (corners[q, along] - start), 1.0))
    return (1 - share) * corners[p, u] + share * corners[q, u], (1 - share) * corners[p, v] + share * corners[q, v]


@njit(cache=True, nogil=True, error_model="numpy")
def edge_crossings(corners, axis, low, high, resolution, size, closed, owners, points):
    """List the crossings with edges along `axis` whose four cells reach into a box of cells.

    Args:
        corners: (3, 3) float64, relative to the lowest corner of the grid, in world units.
        low, high: the box, from cell `low` to before cell `high`, three int64 each.
        resolution, size: cells and voxel size along the axes, as tuples of three.
        closed: a crossing on the upper face of the grid counts for the last cell, and neighbouring triangles leave no gap.
        owners: (m, 3) int64, filled with the cells that own the crossed edges. The cells around an edge are the owner
            plus 0 or 1 along the two other axes; some of these may lie outside the box (never outside the grid).
        points: (m, 3) float64, filled with the crossings. m must be at least (n + 1)² for a box of n³ cells.
    Returns:
        How many rows were filled.
    """
    a0, a1 = (axis + 1) % 3, (axis + 2) % 3
    t0, t1, t2 = 0, 1, 2
    if corners[t1, a1] < corners[t0, a1]:
        t0, t1 = t1, t0
    if corners[t2, a1] < corners[t1, a1]:
        t1, t2 = t2, t1
        if corners[t1, a1] < corners[t0, a1]:
            t0, t1 = t1, t0
    size0, size1, size2 = size[a0], size[a1], size[axis]
    row_begin = max(cell_index(corners[t0, a1], size1, resolution[a1]), low[a1] - 1)
    row_middle = cell_index(corners[t1, a1], size1, resolution[a1])
    row_end = min(cell_index(corners[t2, a1], size1, resolution[a1]), high[a1])
    count = 0
    for row in range(row_begin, row_end):
        base, far = (t0, t2) if row < row_middle else (t2, t0)
        y = upper_plane(row, size1)
        upwards = closed and base == t2  # an edge that two triangles share is cut from its lower end in both
        ax, az = cut(corners, t1 if upwards else base, base if upwards else t1, a1, a0, axis, y)
        ex, ez = cut(corners, far if upwards else base, base if upwards else far, a1, a0, axis, y)
        if ex < ax:
            ax, ex = ex, ax
            az, ez = ez, az
        begin = max(cell_index(ax, size0, resolution[a0]), low[a0] - 1)
        end = min(cell_index(ex, size0, resolution[a0]), high[a0])
        for column in range(begin, end):
            x = upper_plane(column, size0)
            share = max(0.0, min((x - ax) / (ex - ax), 1.0))
            z = (1 - share) * az + share * ez
            layer = int(z / size2)  # truncation, as in the original: down to one voxel below the box counts as 0
            if closed:
                layer = min(layer, resolution[axis] - 1)
            if low[axis] <= layer < high[axis]:
                owners[count, a0], owners[count, a1], owners[count, axis] = column, row, layer
                points[count, a0], points[count, a1], points[count, axis] = x, y, z
                count += 1
    return count
