"""Choice of blocks compiled for the CPU: scores of a few queries at a time stay in the cache, and only the choice is written."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.ops.block_attention._lists import Lists
from voxgen.ops.block_attention._numba_layout import layout_of, lying
from voxgen.ops.block_attention._numba_rows import COLUMNS, SLAB, set_products
from voxgen.ops.block_attention._tile import row_weights
from voxgen.ops.conv._tile import LANES, ROWS

from ._op import run
from ._tables import Tables

LOG2_E = 1.4426950408889634
PIECE = 64
"""Queries that a thread takes at a time."""


def choose(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """See `block_topk`."""
    return run("numba", q, k_c, lse, tables, top_k, scale)


def select(q: Tensor, k_c: Tensor, lse: Tensor, tables: Tables, top_k: int, scale: float) -> Tensor:
    """(Hk, n, top_k) int32."""
    n, heads, width = q.shape
    result = torch.full((k_c.shape[1], n, top_k), -1, dtype=torch.int32)
    if n:
        samples = tables.starts[tables.block_offsets]
        layout = layout_of(Lists(tables.own, samples, tables.children, tables.own, 0))
        _select(
            q.float().reshape(n * heads, width).contiguous().numpy(),
            lying(k_c, layout),
            (lse.float() * LOG2_E).contiguous().numpy(),
            layout.padded,
            tables.starts.contiguous().numpy(),
            torch.repeat_interleave(tables.offsets.diff()).numpy(),
            tables.block_offsets.contiguous().numpy(),
            tables.own.contiguous().numpy(),
            scale * LOG2_E,
            result.numpy(),
        )
    return result


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _select(q, keys, lse, padded, starts, sample, block_offsets, own, factor, result):  # pyright: ignore
    key_heads, n, _ = result.shape
    pieces = (n + PIECE - 1) // PIECE
    for task in prange(pieces * key_heads):
        g, piece = task % key_heads, task // key_heads
        first, last = piece * PIECE, min(n, (piece + 1) * PIECE)
        while first < last:  # a piece may cross samples
            end = first
            while end < last and sample[end] == sample[first]:
                end += 1
            s = sample[first]
            bounds = starts[block_offsets[s] : block_offsets[s + 1] + 1]
            _of_sample(
                q, keys[g], lse, first, end, g, lse.shape[1] // key_heads, padded[s], bounds, block_offsets[s], own, factor, result[g]
            )
            first = end


@njit(cache=True, nogil=True, error_model="numpy")
def _of_sample(q, keys, lse, first, last, g, groups, place, bounds, first_block, own, factor, result):  # pyright: ignore
    """Choices of queries of one sample, whose children lie from `place` on, those of its blocks between `bounds`."""
    width, heads = q.shape[1], lse.shape[1]
    children = np.int64(bounds[-1]) - bounds[0]
    step = max(1, SLAB // groups)
    scores = np.empty((step, children), dtype=np.float32)
    logits = np.zeros((SLAB + ROWS, COLUMNS), dtype=np.float32)
    nothing = np.zeros(width, dtype=np.float32)
    logit_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    query_rows = np.empty(SLAB + ROWS, dtype=np.int64)
    for begin in range(first, last, step):
        count = min(step, last - begin)
        scores[:] = 0.0
        for slab in range(0, count * groups, SLAB):  # more than one where a group is wider than a slab
            height = min(SLAB, count * groups - slab)
            for r in range(height):
                row = (begin + (slab + r) // groups) * heads + g * groups + (slab + r) % groups
                query_rows[r] = q.ctypes.data + 4 * width * row
                logit_rows[r] = logits.ctypes.data + 4 * COLUMNS * r
            for r in range(height, (height + ROWS - 1) // ROWS * ROWS):
                query_rows[r] = nothing.ctypes.data
                logit_rows[r] = logits.ctypes.data + 4 * COLUMNS * SLAB
            for left in range(0, children, COLUMNS):
                columns = min(COLUMNS, children - left)
                filled = (columns + LANES - 1) // LANES * LANES
                panels = keys.ctypes.data + 4 * (place + left) * width
                set_products(query_rows.ctypes.data, logit_rows.ctypes.data, height, panels, filled, width)
                for r in range(height):
                    i, h = (slab + r) // groups, (slab + r) % groups
                    row_weights(logit_rows[r], filled // LANES, factor, lse[begin + i, g * groups + h])
                    for c in range(columns):
                        scores[i, left + c] += logits[r, c]
        for i in range(count):
            forced = own[begin + i] - first_block if len(own) else -1
            _largest(scores[i], bounds, forced, first_block, result[begin + i])


@njit(cache=True, nogil=True, error_model="numpy")
def _largest(scores, bounds, forced, first_block, chosen):  # pyright: ignore
    """The blocks with the largest sums, ascending; the lower of equal ones; NaN last."""
    top_k = len(chosen)
    best = np.empty(top_k, dtype=np.float32)
    found = 0
    for b in range(len(bounds) - 1):
        score = np.float32(0.0)
        for c in range(bounds[b] - bounds[0], bounds[b + 1] - bounds[0]):
            score += scores[c]
        if b == forced:
            score = np.float32(np.inf)
        elif np.isnan(score):
            score = np.float32(-1.0)
        if found == top_k and score <= best[top_k - 1]:
            continue
        place = found if found < top_k else top_k - 1
        while place > 0 and best[place - 1] < score:
            if place < top_k:
                best[place] = best[place - 1]
                chosen[place] = chosen[place - 1]
            place -= 1
        best[place] = score
        chosen[place] = b
        found = min(found + 1, top_k)
    chosen[:found].sort()
    for t in range(found):
        chosen[t] += first_block
