"""Cutting a triangle by slabs, columns and cells, compiled. The arithmetic is that of `_reference.part_in_cell`.

The reference cuts by the walls across x, y and z in this order, so what is left after x serves all cells of a slab, and what
is left after y all cells of a column.
"""

from __future__ import annotations

import math

from numba import njit

CORNERS = 12
"""Room for a polygon: a triangle cut by six planes has at most nine corners."""


@njit(cache=True, nogil=True, error_model="numpy")
def cut_to_slab(polygons, source, count, corners, axis, cell, grow):
    """Keep the part of a polygon in (b1, b2) that lies between the walls of a cell across one axis.

    Args:
        polygons: (7, CORNERS, 2); number 0 is the whole triangle, 1 + 2 axis and 2 + 2 axis are for the results along an axis.
        source: number of the polygon to cut.   count: of its corners.
        corners: (3, 3) of the triangle, in cells.
    Returns:
        Number of the result (the source itself, if all of it is inside), and of its corners.
    """
    offset = corners[0, axis] - cell
    first, second = corners[1, axis] - corners[0, axis], corners[2, axis] - corners[0, axis]
    left = _cut(polygons, source, count, 1.0, offset + grow, first, second, 1 + 2 * axis)
    if left >= 0:
        source, count = 1 + 2 * axis, left
    left = _cut(polygons, source, count, -1.0, offset - (1 + grow), first, second, 2 + 2 * axis)
    if left >= 0:
        source, count = 2 + 2 * axis, left
    return source, count


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(polygons, source, count, inward, offset, first, second, target):
    """Keep what is on the inner side of one wall (Sutherland-Hodgman). Returns the number of corners, -1 if all is kept."""
    outside = 0
    for k in range(count):
        outside += inward * (offset + (polygons[source, k, 0] * first + polygons[source, k, 1] * second)) < 0
    if outside == 0:
        return -1
    if outside == count:
        return 0
    kept = 0
    p1, p2 = polygons[source, count - 1, 0], polygons[source, count - 1, 1]
    d_before = inward * (offset + (p1 * first + p2 * second))
    for k in range(count):
        q1, q2 = polygons[source, k, 0], polygons[source, k, 1]
        d = inward * (offset + (q1 * first + q2 * second))
        if (d_before >= 0) != (d >= 0):
            t = d_before / (d_before - d)
            polygons[target, kept, 0], polygons[target, kept, 1] = p1 + t * (q1 - p1), p2 + t * (q2 - p2)
            kept += 1
        if d >= 0:
            polygons[target, kept, 0], polygons[target, kept, 1] = q1, q2
            kept += 1
        p1, p2, d_before = q1, q2, d
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def reach(polygons, source, count, corners, axis, margin, low, high):
    """(first, end): the cells along one axis within [low, high) that a polygon may touch; none for a polygon without corners."""
    if count == 0:  # the bounds would be infinite, and no integer is
        return low, low
    first, second = corners[1, axis] - corners[0, axis], corners[2, axis] - corners[0, axis]
    least, greatest = math.inf, -math.inf
    for k in range(count):
        position = corners[0, axis] + (polygons[source, k, 0] * first + polygons[source, k, 1] * second)
        least, greatest = min(least, position), max(greatest, position)
    return max(low, math.floor(least - margin)), min(high, math.floor(greatest + margin) + 1)
