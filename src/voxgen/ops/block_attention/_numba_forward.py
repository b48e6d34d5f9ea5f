"""Compiled forward pass: pieces of queries, block by block, with a running softmax."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from voxgen.ops.conv._tile import LANES, ROWS

from ._numba_rows import CHUNK, COLUMNS, SLAB, add_to_rows, list_entries, set_products
from ._tile import power_of_two, row_maximum, row_weights

LN2 = 0.6931471805599453


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def attend_all(q, chosen, queries, starts, padded, keys_lying, values_standing, groups, size, chunk, factor, out, lse):  # pyright: ignore
    """out (n · H, padded d) and lse (n, H), both filled; q is (n · H, d)."""
    n, heads = lse.shape
    key_heads = heads // groups
    pieces = (n + chunk - 1) // chunk
    for task in prange(pieces * key_heads):
        g, piece = task % key_heads, task // key_heads
        first, last = piece * chunk, min(n, (piece + 1) * chunk)
        shared = chosen.shape[0] == 1
        _attend(
            q,
            chosen[0 if shared else g],
            queries,
            first,
            last,
            starts,
            padded,
            keys_lying[g],
            values_standing[g],
            g,
            groups,
            size,
            factor,
            out,
            lse,
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _attend(q, chosen, queries, first, last, starts, padded, keys, values, g, groups, size, factor, out, lse):  # pyright: ignore
    width, wide = q.shape[1], out.shape[1]
    heads = lse.shape[1]
    rows = (last - first) * groups
    top = np.full(rows, -np.inf, dtype=np.float32)
    total = np.zeros(rows, dtype=np.float32)
    result = np.zeros((rows + 1, wide), dtype=np.float32)  # the last row takes what is filled up
    logits = np.zeros((SLAB + ROWS, COLUMNS), dtype=np.float32)
    nothing = np.zeros(max(width, COLUMNS), dtype=np.float32)
    logit_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    query_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    result_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    local = np.empty(SLAB, dtype=np.int64)
    entries = np.empty((last - first) * chosen.shape[1], dtype=np.int64)
    count = list_entries(chosen, queries, first, last, entries)
    key_base, value_base, query_base = keys.ctypes.data, values.ctypes.data, q.ctypes.data
    logit_base, result_base, nothing_base = logits.ctypes.data, result.ctypes.data, nothing.ctypes.data
    begin = 0
    while begin < count:
        block = entries[begin] // CHUNK
        end = begin
        while end < count and entries[end] // CHUNK == block:
            end += 1
        length = np.int64(starts[block + 1]) - starts[block]
        pairs = (end - begin) * groups
        for slab in range(0, pairs, SLAB):
            height = min(SLAB, pairs - slab)
            for r in range(height):
                i = entries[begin + (slab + r) // groups] % CHUNK
                h = (slab + r) % groups
                local[r] = i * groups + h
                query_rows[r] = query_base + 4 * width * (np.int64(queries[first + i]) * heads + g * groups + h)
                result_rows[r] = result_base + 4 * wide * local[r]
                logit_rows[r] = logit_base + 4 * COLUMNS * r
            for r in range(height, (height + ROWS - 1) // ROWS * ROWS):
                query_rows[r] = nothing_base
                result_rows[r] = result_base + 4 * wide * rows
                logit_rows[r] = logit_base + 4 * COLUMNS * SLAB
            for left in range(0, length, COLUMNS):
                columns = min(COLUMNS, length - left)
                filled = (columns + LANES - 1) // LANES * LANES
                lying = key_base + 4 * (padded[block] + left) * width
                set_products(query_rows.ctypes.data, logit_rows.ctypes.data, height, lying, filled, width)
                for r in range(height):
                    row = local[r]
                    highest = row_maximum(logit_rows[r], columns) * factor
                    if highest > top[row]:
                        if total[row] != 0.0:
                            shrink = power_of_two(top[row] - highest)
                            total[row] *= shrink
                            for j in range(wide):
                                result[row, j] *= shrink
                        top[row] = highest
                    total[row] += row_weights(logit_rows[r], filled // LANES, factor, top[row])
                standing = padded[block] + left
                add_to_rows(logit_rows.ctypes.data, result_rows.ctypes.data, height, value_base, standing, size, wide, columns)
        begin = end
    for i in range(last - first):
        for h in range(groups):
            row = i * groups + h
            head = g * groups + h
            target = queries[first + i] * heads + head
            if total[row] == 0.0:
                lse[queries[first + i], head] = -np.inf
                out[target] = 0.0
            else:
                lse[queries[first + i], head] = np.float32((np.float64(top[row]) + np.log2(np.float64(total[row]))) * LN2)
                for j in range(wide):
                    out[target, j] = result[row, j] / total[row]
