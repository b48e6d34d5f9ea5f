"""Compiled backward pass: all gradients in one walk over the pairs, with sums of keys apart for each part of the queries."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from voxgen.ops.conv._tile import LANES, ROWS

from ._numba_rows import CHUNK, COLUMNS, SLAB, add_products, add_to_rows, list_entries, set_products
from ._tile import row_slopes, row_weights


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def differentiate_all(  # pyright: ignore
    q,
    grad,
    gate,
    delta,
    lse,
    chosen,
    queries,
    starts,
    padded,
    keys_lying,
    values_lying,
    keys_standing,
    width,
    groups,
    size,
    chunk,
    factor,
    scale,
    for_q,
    for_k,
    for_v,
):
    """for_q (n · H, padded d); for_k, for_v (parts, Hk, filled-up keys, padded d), zeros at first. q and grad are (n · H, padded d)."""
    n, heads = lse.shape
    key_heads = heads // groups
    parts = for_k.shape[0]
    pieces = (n + chunk - 1) // chunk
    for task in prange(parts * key_heads):
        g, part = task % key_heads, task // key_heads
        own = chosen[0 if chosen.shape[0] == 1 else g]
        for piece in range(part * pieces // parts, (part + 1) * pieces // parts):
            first, last = piece * chunk, min(n, (piece + 1) * chunk)
            _differentiate(
                q,
                grad,
                gate,
                delta,
                lse,
                own,
                queries,
                first,
                last,
                starts,
                padded,
                keys_lying[g],
                values_lying[g],
                keys_standing[g],
                width,
                g,
                groups,
                size,
                factor,
                scale,
                for_q,
                for_k[part, g],
                for_v[part, g],
            )


@njit(cache=True, nogil=True, error_model="numpy")
def _differentiate(  # pyright: ignore
    q,
    grad,
    gate,
    delta,
    lse,
    chosen,
    queries,
    first,
    last,
    starts,
    padded,
    keys,
    values,
    keys_standing,
    width,
    g,
    groups,
    size,
    factor,
    scale,
    for_q,
    for_k,
    for_v,
):
    wide = for_q.shape[1]
    heads = lse.shape[1]
    rows = (last - first) * groups
    result = np.zeros((rows + 1, wide), dtype=np.float32)  # the last row takes what is filled up
    weights = np.zeros((SLAB + ROWS, COLUMNS), dtype=np.float32)
    slopes = np.zeros((SLAB + ROWS, COLUMNS), dtype=np.float32)
    nothing = np.zeros(max(wide, COLUMNS), dtype=np.float32)
    weight_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    slope_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    query_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    grad_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    result_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    token = np.empty(SLAB, dtype=np.int64)
    entries = np.empty((last - first) * chosen.shape[1], dtype=np.int64)
    count = list_entries(chosen, queries, first, last, entries)
    query_base, grad_base, result_base, nothing_base = q.ctypes.data, grad.ctypes.data, result.ctypes.data, nothing.ctypes.data
    weight_base, slope_base = weights.ctypes.data, slopes.ctypes.data
    for_k_base, for_v_base = for_k.ctypes.data, for_v.ctypes.data
    key_base, value_base, standing_base = keys.ctypes.data, values.ctypes.data, keys_standing.ctypes.data
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
                token[r] = queries[first + i]
                row = token[r] * heads + g * groups + h
                query_rows[r] = query_base + 4 * wide * row
                grad_rows[r] = grad_base + 4 * wide * row
                result_rows[r] = result_base + 4 * wide * (i * groups + h)
                weight_rows[r] = weight_base + 4 * COLUMNS * r
                slope_rows[r] = slope_base + 4 * COLUMNS * r
            for r in range(height, (height + ROWS - 1) // ROWS * ROWS):
                query_rows[r] = nothing_base
                grad_rows[r] = nothing_base
                result_rows[r] = result_base + 4 * wide * rows
                weight_rows[r] = weight_base + 4 * COLUMNS * SLAB
                slope_rows[r] = slope_base + 4 * COLUMNS * SLAB
            for left in range(0, length, COLUMNS):
                columns = min(COLUMNS, length - left)
                filled = (columns + LANES - 1) // LANES * LANES
                lying = 4 * (padded[block] + left) * width
                set_products(query_rows.ctypes.data, weight_rows.ctypes.data, height, key_base + lying, filled, width)
                set_products(grad_rows.ctypes.data, slope_rows.ctypes.data, height, value_base + lying, filled, width)
                for r in range(height):  # what is filled up behind the columns gets any weight; it only meets rows that nobody reads
                    head = g * groups + (slab + r) % groups
                    row_weights(weight_rows[r], filled // LANES, factor, lse[token[r], head])
                    row_slopes(weight_rows[r], slope_rows[r], filled // LANES, gate[token[r]], delta[token[r], head], scale)
                standing = padded[block] + left
                add_to_rows(slope_rows.ctypes.data, result_rows.ctypes.data, height, standing_base, standing, size, wide, columns)
                shift = 4 * wide * standing
                add_products(weight_rows.ctypes.data, grad_rows.ctypes.data, height, filled, wide, for_v_base + shift, 4 * wide)
                add_products(slope_rows.ctypes.data, query_rows.ctypes.data, height, filled, wide, for_k_base + shift, 4 * wide)
        begin = end
    for i in range(last - first):
        for h in range(groups):
            for_q[queries[first + i] * heads + g * groups + h] = result[i * groups + h]
