# pyright: reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
"""Triton kernels: forward, gradients of queries, gradients of keys and values, and the sum of their parts.

A program holds M rows, BQ queries with GP heads each (the heads of a key head, filled up to a power of two); row r is query
r // GP, head r % GP. All of them meet the same keys, so each key is loaded once for the whole group.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def forward_kernel(  # pyright: ignore
    q,
    k,
    v,
    queries,
    union_blocks,
    union_bits,
    union_counts,
    starts,
    out,
    lse,
    n,
    tiles,
    factor,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    GP: tl.constexpr,
    BQ: tl.constexpr,
    ENTRIES: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of queries × one key head, over the union of the blocks they see, with a running softmax."""
    tile = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1).to(tl.int64)
    GROUPS: tl.constexpr = HEADS // KEY_HEADS
    row = tl.arange(0, BQ * GP)
    position = tile * BQ + row // GP
    present = (position < n) & (row % GP < GROUPS)
    token = tl.load(queries + position, mask=present, other=0).to(tl.int64)
    head = g * GROUPS + row % GP
    channel = tl.arange(0, DP)
    place = (token[:, None] * HEADS + head[:, None]) * D + channel[None, :]
    inside = present[:, None] & (channel[None, :] < D)
    query = tl.load(q + place, mask=inside, other=0.0)
    top = tl.full((BQ * GP,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BQ * GP,), dtype=tl.float32)
    result = tl.zeros((BQ * GP, DP), dtype=tl.float32)
    entry = (0 if SHARED else g) * tiles + tile
    for e in range(0, tl.load(union_counts + entry)):
        block = tl.load(union_blocks + entry * ENTRIES + e).to(tl.int64)
        bits = tl.load(union_bits + entry * ENTRIES + e)
        sees = (((bits >> (row // GP).to(tl.int64)) & 1) != 0) & present
        last = tl.load(starts + block + 1)
        for first in range(tl.load(starts + block), last, BN):
            key = first + tl.arange(0, BN)
            address = (key[:, None].to(tl.int64) * KEY_HEADS + g) * D + channel[None, :]
            listed = (key[:, None] < last) & (channel[None, :] < D)
            keys = tl.load(k + address, mask=listed, other=0.0)
            values = tl.load(v + address, mask=listed, other=0.0)
            logits = tl.dot(query, tl.trans(keys), input_precision=PRECISION) * factor
            logits = tl.where(sees[:, None] & (key[None, :] < last), logits, float("-inf"))
            highest = tl.maximum(top, tl.max(logits, 1))
            safe = tl.where(highest == float("-inf"), 0.0, highest)  # a row may have seen nothing yet
            weights = tl.exp2(logits - safe[:, None])
            shrink = tl.exp2(top - safe)
            total = total * shrink + tl.sum(weights, 1)
            result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None], input_precision=PRECISION)
            top = highest
    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    result = result / total[:, None]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
    logarithm = tl.where(blind, float("-inf"), (top + tl.log2(total)) * 0.6931471805599453)
    tl.store(lse + token * HEADS + head, logarithm, mask=present)


@triton.jit
def query_gradient_kernel(  # pyright: ignore
    q,
    k,
    v,
    grad,
    gate,
    delta,
    lse,
    queries,
    union_blocks,
    union_bits,
    union_counts,
    starts,
    for_q,
    n,
    tiles,
    factor,
    scale,
    gate_step,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    GP: tl.constexpr,
    BQ: tl.constexpr,
    ENTRIES: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The forward walk again, with the weights from the kept log-sum-exp."""
    tile = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1).to(tl.int64)
    GROUPS: tl.constexpr = HEADS // KEY_HEADS
    row = tl.arange(0, BQ * GP)
    position = tile * BQ + row // GP
    present = (position < n) & (row % GP < GROUPS)
    token = tl.load(queries + position, mask=present, other=0).to(tl.int64)
    head = g * GROUPS + row % GP
    channel = tl.arange(0, DP)
    place = (token[:, None] * HEADS + head[:, None]) * D + channel[None, :]
    inside = present[:, None] & (channel[None, :] < D)
    query = tl.load(q + place, mask=inside, other=0.0)
    slope = tl.load(grad + place, mask=inside, other=0.0)
    shift = tl.load(lse + token * HEADS + head, mask=present, other=0.0) * 1.4426950408889634
    removed = tl.load(delta + token * HEADS + head, mask=present, other=0.0)
    gates = tl.load(gate + token * gate_step, mask=present, other=0.0).to(tl.float32) if GATED else present.to(tl.float32)
    result = tl.zeros((BQ * GP, DP), dtype=tl.float32)
    entry = (0 if SHARED else g) * tiles + tile
    for e in range(0, tl.load(union_counts + entry)):
        block = tl.load(union_blocks + entry * ENTRIES + e).to(tl.int64)
        bits = tl.load(union_bits + entry * ENTRIES + e)
        sees = (((bits >> (row // GP).to(tl.int64)) & 1) != 0) & present
        last = tl.load(starts + block + 1)
        for first in range(tl.load(starts + block), last, BN):
            key = first + tl.arange(0, BN)
            address = (key[:, None].to(tl.int64) * KEY_HEADS + g) * D + channel[None, :]
            listed = (key[:, None] < last) & (channel[None, :] < D)
            keys = tl.load(k + address, mask=listed, other=0.0)
            values = tl.load(v + address, mask=listed, other=0.0)
            logits = tl.dot(query, tl.trans(keys), input_precision=PRECISION) * factor
            seen = sees[:, None] & (key[None, :] < last)
            weights = tl.where(seen, tl.exp2(logits - shift[:, None]), 0.0)
            products = tl.dot(slope, tl.trans(values), input_precision=PRECISION) * gates[:, None]
            slopes = tl.where(seen, weights * (products - removed[:, None]) * scale, 0.0)
            result = tl.dot(slopes.to(keys.dtype), keys, result, input_precision=PRECISION)
    tl.store(for_q + place, result.to(for_q.dtype.element_ty), mask=inside)


@triton.jit
def key_gradient_kernel(  # pyright: ignore
    q,
    k,
    v,
    grad,
    gate,
    delta,
    lse,
    members,
    segment_block,
    segment_begin,
    segment_end,
    segment_row,
    starts,
    part_k,
    part_v,
    members_step,
    segments,
    part_rows,
    factor,
    scale,
    gate_step,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    GP: tl.constexpr,
    BQ: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One segment of a block's list of queries × one slice of its keys × one key head. Logits are transposed: keys are rows."""
    segment = tl.program_id(0).to(tl.int64)
    g = tl.program_id(2).to(tl.int64)
    GROUPS: tl.constexpr = HEADS // KEY_HEADS
    which = 0 if SHARED else g
    entry = which * segments + segment
    block = tl.load(segment_block + entry).to(tl.int64)
    first = tl.load(starts + block)
    last = tl.load(starts + block + 1)
    offset = tl.program_id(1) * BN + tl.arange(0, BN)
    key = first + offset
    if first + tl.program_id(1) * BN < last:
        channel = tl.arange(0, DP)
        address = (key[:, None].to(tl.int64) * KEY_HEADS + g) * D + channel[None, :]
        listed = (key[:, None] < last) & (channel[None, :] < D)
        keys = tl.load(k + address, mask=listed, other=0.0)
        values = tl.load(v + address, mask=listed, other=0.0)
        total_k = tl.zeros((BN, DP), dtype=tl.float32)
        total_v = tl.zeros((BN, DP), dtype=tl.float32)
        row = tl.arange(0, BQ * GP)
        head = g * GROUPS + row % GP
        end = tl.load(segment_end + entry)
        for begin in range(tl.load(segment_begin + entry), end, BQ):
            member = begin + row // GP
            present = (member < end) & (row % GP < GROUPS)
            token = tl.load(members + which * members_step + member, mask=present, other=0).to(tl.int64)
            place = (token[:, None] * HEADS + head[:, None]) * D + channel[None, :]
            inside = present[:, None] & (channel[None, :] < D)
            query = tl.load(q + place, mask=inside, other=0.0)
            slope = tl.load(grad + place, mask=inside, other=0.0)
            # rows that are not there have an infinite sum, so that their weights are 0
            shift = tl.load(lse + token * HEADS + head, mask=present, other=float("inf")) * 1.4426950408889634
            removed = tl.load(delta + token * HEADS + head, mask=present, other=0.0)
            gates = tl.load(gate + token * gate_step, mask=present, other=0.0).to(tl.float32) if GATED else present.to(tl.float32)
            weights = tl.exp2(tl.dot(keys, tl.trans(query), input_precision=PRECISION) * factor - shift[None, :])
            total_v = tl.dot((weights * gates[None, :]).to(slope.dtype), slope, total_v, input_precision=PRECISION)
            products = tl.dot(values, tl.trans(slope), input_precision=PRECISION) * gates[None, :]
            slopes = weights * (products - removed[None, :]) * scale
            total_k = tl.dot(slopes.to(query.dtype), query, total_k, input_precision=PRECISION)
        target = (g * part_rows + tl.load(segment_row + entry) + offset[:, None]) * D + channel[None, :]
        tl.store(part_k + target, total_k, mask=listed)
        tl.store(part_v + target, total_v, mask=listed)


@triton.jit
def sum_parts_kernel(  # pyright: ignore
    part,
    keys,
    block_of,
    starts,
    first_segment,
    segment_counts,
    segment_row,
    out,
    listed,
    blocks,
    segments,
    part_rows,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradient of each listed key: the sum over the segments of its block, in order, to its row of k."""
    g = tl.program_id(1).to(tl.int64)
    which = 0 if SHARED else g
    position = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    present = position < listed
    block = tl.load(block_of + position, mask=present, other=0).to(tl.int64)
    offset = position - tl.load(starts + block, mask=present, other=0)
    first = tl.load(first_segment + which * blocks + block, mask=present, other=0).to(tl.int64)
    count = tl.load(segment_counts + which * blocks + block, mask=present, other=0)
    channel = tl.arange(0, DP)
    total = tl.zeros((ROWS, DP), dtype=tl.float32)
    for s in range(0, tl.max(count, 0)):
        row = tl.load(segment_row + which * segments + first + s, mask=present & (s < count), other=0)
        source = (g * part_rows + row[:, None] + offset[:, None]) * D + channel[None, :]
        total += tl.load(part + source, mask=(present & (s < count))[:, None] & (channel[None, :] < D), other=0.0)
    row = tl.load(keys + position, mask=present, other=0).to(tl.int64)
    target = (row[:, None] * KEY_HEADS + g) * D + channel[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=present[:, None] & (channel[None, :] < D))
