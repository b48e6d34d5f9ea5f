# pyright: reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
"""Triton kernel: scores and choice in one walk over the compression tokens, so that no score is ever written.

A program holds BQ queries of one sample and one key head. For each tile of columns it adds up the softmax weights of the heads of
the group (their log-sum-exp is known, so nothing is rescaled), folds them to blocks and merges the best into its list. A score
and its block are one number, bits of the float above, so that larger is better and equal scores prefer the lower block.

Blocks are walked by kind: kind i has up to 2ⁱ compression tokens, so that folding is a sum over an axis, and little is filled up.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def choose_kernel(  # pyright: ignore
    q,
    k,
    lse,
    starts,
    kinds,
    kind_bounds,
    tile_sample,
    tile_first,
    tile_last,
    own,
    chosen,
    n,
    samples,
    factor,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    BQ: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    KINDS: tl.constexpr,
    TOP_K: tl.constexpr,
    TP: tl.constexpr,
    OWN: tl.constexpr,
    NO_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile = tl.program_id(0)
    g = tl.program_id(1).to(tl.int64)
    sample = tl.load(tile_sample + tile)
    token = tl.load(tile_first + tile) + tl.arange(0, BQ).to(tl.int64)
    present = token < tl.load(tile_last + tile)
    token = tl.where(present, token, 0)
    active = (tl.load(tile_first + tile) < tl.load(tile_last + tile)).to(tl.int32)  # a tile behind the last walks nothing
    best = tl.full((BQ, TP), -(2**63), dtype=tl.int64)
    forced = tl.load(own + token, mask=present, other=-1) if OWN else tl.full((BQ,), -1, dtype=tl.int32)
    for KIND in tl.static_range(KINDS):  # pyright: ignore
        begin = tl.load(kind_bounds + KIND * (samples + 1) + sample)
        last = tl.load(kind_bounds + KIND * (samples + 1) + sample + 1) * active
        best = walk_kind(
            best, q, k, lse, starts, kinds, forced, token, begin, last, g, factor,
            1 << KIND, HEADS, KEY_HEADS, BQ, D, DP, BN, TOP_K, TP, OWN, NO_BLOCK, PRECISION,
        )  # fmt: skip
    slot = tl.arange(0, TP)
    found = (best != -(2**63)) & (slot < TOP_K)[None, :]
    blocks = tl.sort(tl.where(found, NO_BLOCK - (best & NO_BLOCK), NO_BLOCK).to(tl.int32))
    place = chosen + (g * n + token[:, None]) * TOP_K + slot[None, :]
    tl.store(place, tl.where(blocks == NO_BLOCK, -1, blocks), mask=present[:, None] & (slot < TOP_K)[None, :])


@triton.jit
def walk_kind(  # pyright: ignore
    best,
    q,
    k,
    lse,
    starts,
    kinds,
    forced,
    token,
    begin,
    last,
    g,
    factor,
    CHILDREN: tl.constexpr,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    BQ: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    TOP_K: tl.constexpr,
    TP: tl.constexpr,
    OWN: tl.constexpr,
    NO_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The best of `best` and of the blocks begin … last of one kind, which have up to CHILDREN compression tokens."""
    GROUPS: tl.constexpr = HEADS // KEY_HEADS
    channel = tl.arange(0, DP)
    BLOCKS: tl.constexpr = max(BN // CHILDREN, TP)
    for first in range(begin, last, BLOCKS):
        column = tl.arange(0, BLOCKS * CHILDREN)
        entry = first + column // CHILDREN
        of_column = tl.load(kinds + entry, mask=entry < last, other=0)
        key = tl.load(starts + of_column) + column % CHILDREN
        exists = (entry < last) & (key < tl.load(starts + of_column + 1))
        address = (key[:, None].to(tl.int64) * KEY_HEADS + g) * D + channel[None, :]
        keys = tl.load(k + address, mask=exists[:, None] & (channel[None, :] < D), other=0.0)
        shares = tl.zeros((BQ, BLOCKS * CHILDREN), dtype=tl.float32)
        for h in range(0, GROUPS):
            head = g * GROUPS + h
            query = tl.load(q + (token[:, None] * HEADS + head) * D + channel[None, :], mask=channel[None, :] < D, other=0.0)
            shift = tl.load(lse + token * HEADS + head).to(tl.float32) * 1.4426950408889634
            logits = tl.dot(query, tl.trans(keys), input_precision=PRECISION) * factor
            shares += tl.exp2(logits - shift[:, None])
        shares = tl.where(exists[None, :], shares, 0.0)
        score = tl.sum(tl.reshape(shares, (BQ, BLOCKS, CHILDREN)), 2)
        score = tl.where(score == score, score, -1.0)  # NaN is less than any score
        entry = first + tl.arange(0, BLOCKS)
        block = tl.load(kinds + entry, mask=entry < last, other=0)
        if OWN:
            score = tl.where(block[None, :] == forced[:, None], float("inf"), score)
        rank = (score.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (NO_BLOCK - block)[None, :].to(tl.int64)
        rank = tl.where((entry < last)[None, :], rank, -(2**63))
        worst = tl.min(tl.where((tl.arange(0, TP) < TOP_K)[None, :], best, 2**63 - 1), 1)
        if tl.max((rank > worst[:, None]).to(tl.int32)) > 0:  # else nothing can enter a list
            best = merge_by_rounds(best, rank, TOP_K, TP)
    return best


@triton.jit
def merge_by_rounds(best, rank, TOP_K: tl.constexpr, TP: tl.constexpr):  # pyright: ignore
    """The TOP_K largest of both, one a round: less work than sorting where lists are short, and less code. All differ but the smallest."""
    slot = tl.arange(0, TP)
    merged = tl.full(best.shape, -(2**63), dtype=tl.int64)
    for t in range(0, TOP_K):
        largest = tl.maximum(tl.max(best, 1), tl.max(rank, 1))[:, None]
        merged = tl.where((slot == t)[None, :], largest, merged)
        best = tl.where(best == largest, -(2**63), best)
        rank = tl.where(rank == largest, -(2**63), rank)
    return merged
