# pyright: reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
"""Triton kernel: one lane a pair of a face and a pixel of its box, so that large and small triangles cost by their pixels alone.

The same arithmetic in the same order as `_coverage.covers`, in float64. It must be launched without fused multiply-add, which would
round differently.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def nearest_kernel(  # pyright: ignore
    screen,
    corners,
    face_of_box,
    ends,
    box_top,
    box_left,
    box_columns,
    lowest_depth,
    lowest_id,
    best,
    best_id,
    boxes,
    first_pair,
    pairs,
    window_top,
    window_left,
    window_columns,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PEEL: tl.constexpr,
    BY_DEPTH: tl.constexpr,
):
    """BY_DEPTH lowers `best` to the smallest depth of each pixel, as ordered bits; else `best_id` to the lowest face of that depth."""
    pair = first_pair + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    there = pair < pairs
    low = tl.zeros((BLOCK,), dtype=tl.int64)
    high = tl.zeros((BLOCK,), dtype=tl.int64) + (boxes - 1)
    for _ in range(STEPS):  # the first box whose end lies behind the pair
        middle = (low + high) // 2
        behind = tl.load(ends + middle) <= pair
        low = tl.where(behind, tl.minimum(middle + 1, high), low)
        high = tl.where(behind, high, middle)
    box = low
    before = tl.load(ends + box - 1, mask=box > 0, other=0)
    place, columns = pair - before, tl.load(box_columns + box)
    row, column = tl.load(box_top + box) + place // columns, tl.load(box_left + box) + place % columns
    px, py = column.to(tl.float64) + 0.5, row.to(tl.float64) + 0.5
    x0, y0, z0, w0 = relative(screen, tl.load(corners + box * 3), px, py)
    x1, y1, z1, w1 = relative(screen, tl.load(corners + box * 3 + 1), px, py)
    x2, y2, z2, w2 = relative(screen, tl.load(corners + box * 3 + 2), px, py)
    a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    positive = (a0 >= 0) & (a1 >= 0) & (a2 >= 0)
    negative = (a0 <= 0) & (a1 <= 0) & (a2 <= 0)
    side = tl.where(positive, 1.0, -1.0).to(tl.float64)
    inside = (positive | negative) & there
    inside = inside & ((a0 != 0) | top_left(x1, y1, w1, x2, y2, w2, side))
    inside = inside & ((a1 != 0) | top_left(x2, y2, w2, x0, y0, w0, side))
    inside = inside & ((a2 != 0) | top_left(x0, y0, w0, x1, y1, w1, side))
    weight = a0 * w0 + a1 * w1 + a2 * w2
    inside = inside & (side * weight > 0)
    depth = (a0 * z0 + a1 * z1 + a2 * z2) / tl.where(inside, weight, 1.0)
    inside = inside & (depth >= -1) & (depth <= 1)
    depth = tl.where(depth == 0, 0.0, depth)  # no negative zero, whose bits differ
    pixel = (row - window_top) * window_columns + column - window_left
    face = tl.load(face_of_box + box)
    if PEEL:
        limit = tl.load(lowest_depth + pixel, mask=inside, other=0.0)
        limit_id = tl.load(lowest_id + pixel, mask=inside, other=0)
        inside = inside & ((depth > limit) | ((depth == limit) & (face > limit_id)))
    bits = depth.to(tl.int64, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)  # in the order of the numbers
    if BY_DEPTH:
        tl.atomic_min(best + pixel, key, mask=inside)
    else:
        nearest = tl.load(best + pixel, mask=inside, other=0)
        tl.atomic_min(best_id + pixel, face.to(tl.int32), mask=inside & (nearest == key))


@triton.jit
def relative(screen, vertex, px, py):  # pyright: ignore
    """A vertex in screen space, its x and y with the pixel's centre as origin."""
    w = tl.load(screen + vertex * 4 + 3)
    x = tl.load(screen + vertex * 4) - px * w
    y = tl.load(screen + vertex * 4 + 1) - py * w
    return x, y, tl.load(screen + vertex * 4 + 2), w


@triton.jit
def top_left(xi, yi, wi, xj, yj, wj, side):  # pyright: ignore
    """Whether a centre exactly on this edge belongs to the face."""
    along_columns = side * (yi * wj - wi * yj)
    along_rows = side * (wi * xj - xi * wj)
    return (along_columns > 0) | ((along_columns == 0) & (along_rows > 0))
