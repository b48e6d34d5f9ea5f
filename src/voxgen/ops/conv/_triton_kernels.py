"""Two Triton kernels: masked implicit GEMM (outputs, and gradients of inputs), and the gradient of the weights."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def multiply_kernel(  # pyright: ignore
    feats,
    weight,
    bias,
    table,
    order,
    offsets,
    offset_counts,
    out,
    n_out,
    channels_in,
    channels_out,
    volume,
    weight_k,
    weight_in,
    weight_out,
    MIRRORED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One tile of rows × one tile of columns; part p of PARTS takes every PARTS-th step and writes sums of its own."""
    tile = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(2)
    row = tl.load(order + tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    depth_steps = tl.cdiv(channels_in, DEPTH)
    steps = tl.load(offset_counts + tile) * depth_steps
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for step in range(part, steps, PARTS):
        k = tl.load(offsets + tile * volume + step // depth_steps).to(tl.int64)
        source = tl.load(table + row * volume + k, mask=row >= 0, other=-1).to(tl.int64)
        channel = (step % depth_steps) * DEPTH + tl.arange(0, DEPTH)
        left = tl.load(
            feats + source[:, None] * channels_in + channel[None, :],
            mask=(source[:, None] >= 0) & (channel[None, :] < channels_in),
            other=0.0,
        )
        weight_row = volume - 1 - k if MIRRORED else k
        right = tl.load(
            weight + weight_row * weight_k + channel[:, None] * weight_in + column[None, :] * weight_out,
            mask=(channel[:, None] < channels_in) & (column[None, :] < channels_out),
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < channels_out, other=0.0).to(tl.float32)[None, :]
    place = out + (part * n_out + row[:, None]) * channels_out + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(row[:, None] >= 0) & (column[None, :] < channels_out))


@triton.jit
def weight_gradient_kernel(  # pyright: ignore
    feats,
    grad,
    table,
    order,
    tiles,
    tile_counts,
    out,
    n_tiles,
    channels_in,
    channels_out,
    volume,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One offset × one block of its matrix, over the tiles that visit the offset; part p takes every PARTS-th of them."""
    k = tl.program_id(0).to(tl.int64)
    part = tl.program_id(2)
    column_blocks = tl.cdiv(channels_out, COLUMNS)
    channel = (tl.program_id(1) // column_blocks) * DEPTH + tl.arange(0, DEPTH)
    column = (tl.program_id(1) % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((DEPTH, COLUMNS), dtype=tl.float32)
    for step in range(part, tl.load(tile_counts + k), PARTS):
        tile = tl.load(tiles + k * n_tiles + step)
        row = tl.load(order + tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        source = tl.load(table + row * volume + k, mask=row >= 0, other=-1).to(tl.int64)
        left = tl.load(
            feats + source[None, :] * channels_in + channel[:, None],
            mask=(source[None, :] >= 0) & (channel[:, None] < channels_in),
            other=0.0,
        )
        right = tl.load(
            grad + row[:, None] * channels_out + column[None, :],
            mask=(source[:, None] >= 0) & (column[None, :] < channels_out),
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    place = out + ((part * volume + k) * channels_in + channel[:, None]) * channels_out + column[None, :]
    tl.store(place, total, mask=(channel[:, None] < channels_in) & (column[None, :] < channels_out))
