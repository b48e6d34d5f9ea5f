"""Sparse convolution compiled for the CPU.

Outputs are dealt to threads in chunks. For each chunk and offset the present pairs of rows are listed by address, and a
register tile multiplies them where they lie and adds to the outputs, so nothing is gathered or scattered through memory,
and no thread writes what another writes. Each offset's product is summed apart before it is added, which keeps the
rounding error small. The result does not depend on the chunks, nor on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

from ._op import Tables, run
from ._tile import (
    LANES,
    ROWS,
    WIDTH,
    copy_panel_narrow,
    copy_panel_wide,
    list_pairs,
    multiply_rows_narrow,
    multiply_rows_wide,
    outer_narrow,
    outer_narrow_row,
    outer_wide,
    outer_wide_row,
)

CHUNK = 1024
"""Outputs that a thread takes at a time, where there are enough."""
GROUP = 128
"""Columns that a thread takes at a time: with CHUNK rows they stay in its cache."""
DEPTH = 256
"""Input channels in one go: a panel of weights this deep stays in the first-level cache."""
PIECES = 32
"""Pieces that the weight gradient is dealt in. Fixed, so that the result is the same with any number of threads."""
PIECE_CHANNELS = 32
PAIR_CHUNK = 512


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    return run("numba", feats, weight, bias, table)


def forward(feats: Tensor, weight: Tensor, bias: Tensor | None, tables: Tables) -> Tensor:
    """(n_out, Co) outputs."""
    return _multiply(feats, weight, bias, tables.table, mirrored=False).to(feats.dtype)


def gradients(
    grad: Tensor, feats: Tensor, weight: Tensor, tables: Tables, need_feats: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of feats and weight."""
    for_feats = for_weight = None
    if need_feats:
        rows = tables.table if tables.back is None else tables.back
        for_feats = _multiply(grad, weight.transpose(1, 2), None, rows, mirrored=tables.back is None).to(feats.dtype)
    if need_weight:
        for_weight = _weight_gradient(feats, grad, tables.table).to(weight.dtype)
    return for_feats, for_weight


def _multiply(feats: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor, mirrored: bool) -> Tensor:
    n_out, channels = len(table), weight.shape[2]
    padded = -channels % LANES
    start = torch.zeros(channels + padded)
    if bias is not None:
        start[:channels] = bias
    out = torch.empty(n_out, channels + padded)
    if out.numel():
        columns, shift = _columns(weight, padded)
        groups = -(-out.shape[1] // GROUP)
        chunk = _chunk(n_out, groups)
        _fill(_pad(feats, 0).numpy(), columns.numpy(), shift, table.numpy(), mirrored, start.numpy(), out.numpy(), chunk)
    return out[:, :channels].contiguous()


def _columns(weight: Tensor, padded: int) -> tuple[Tensor, int]:
    """Contiguous float32 weights with `padded` zero columns more, and the column at which they begin: some columns of a wider
    tensor are read where they lie, as a copy of deep weights would cost more than few rows."""
    volume, depth, width = weight.shape
    step = weight.stride(1)
    if weight.dtype != torch.float32 or padded or weight.stride() != (depth * step, step, 1) or step == width:
        return _pad(weight, padded), 0
    room = weight.untyped_storage().nbytes() // weight.element_size() - volume * depth * step
    offset = int(weight.storage_offset())
    first = min(offset, room)
    shift = offset - first
    if first < 0 or shift + width > step:
        return _pad(weight, padded), 0
    return weight.as_strided((volume, depth, step), weight.stride(), first), shift


def _weight_gradient(feats: Tensor, grad: Tensor, table: Tensor) -> Tensor:
    volume, channels_in, channels_out = table.shape[1], feats.shape[1], grad.shape[1]
    padded = -channels_out % LANES
    blocks = max(1, -(-channels_in // PIECE_CHANNELS))
    size = volume * channels_in * (channels_out + padded)
    room = max(feats.numel(), 1 << 22) // max(size, 1)  # partial sums may take as much memory as the features
    slabs = max(1, min(-(-PIECES // blocks), room, len(table) // PAIR_CHUNK))
    partial = torch.zeros(slabs, volume, channels_in, channels_out + padded)
    if partial.numel() and len(table):
        _add_products(_pad(feats, 0).numpy(), _pad(grad, padded).numpy(), table.numpy(), partial.numpy())
    total = partial[0] if slabs == 1 else partial.sum(0)
    return total[..., :channels_out].contiguous()


def _pad(values: Tensor, columns: int) -> Tensor:
    """In float32, with as many zero columns more; the tensor itself where that changes nothing."""
    wide = values.float()
    return (torch.nn.functional.pad(wide, (0, columns)) if columns else wide).contiguous()


def _chunk(n_out: int, groups: int) -> int:
    chunk = CHUNK
    while chunk > 128 and -(-n_out // chunk) * groups < 4 * numba.get_num_threads():
        chunk //= 2
    return chunk


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill(feats, weight, shift, table, mirrored, start, out, chunk):  # pyright: ignore
    """out[o] = start + sum over k of feats[table[o, k]] @ weight[k, :, shift:]; with `mirrored`, of feats[table[o, K − 1 − k]]."""
    n_out, volume = table.shape
    channels, columns = feats.shape[1], out.shape[1]
    groups = (columns + GROUP - 1) // GROUP
    for task in prange(((n_out + chunk - 1) // chunk) * groups):
        first = task // groups * chunk
        last = min(n_out, first + chunk)
        left = task % groups * GROUP
        right = min(columns, left + GROUP)
        sources = np.empty(chunk + ROWS, dtype=np.int64)
        targets = np.empty(chunk + ROWS, dtype=np.int64)
        nothing = np.zeros(channels, dtype=np.float32)  # a tile is filled up with rows that add zero to no output
        nowhere = np.zeros(columns, dtype=np.float32)
        panel = np.empty(DEPTH * WIDTH, dtype=np.float32)
        for column in range(left, right, LANES):
            copy_panel_narrow(start[column:].ctypes.data, 0, last - first, out[first, column:].ctypes.data, 4 * columns)
        for k in range(volume):
            entry = volume - 1 - k if mirrored else k
            pairs = _list_pairs(feats, table, out, entry, first, last, sources, targets)
            if pairs == 0:
                continue
            while pairs % ROWS != 0:
                sources[pairs] = nothing.ctypes.data
                targets[pairs] = nowhere.ctypes.data
                pairs += 1
            for top in range(0, channels, DEPTH):
                depth = min(DEPTH, channels - top)
                for column in range(left, right, WIDTH):
                    _add_panel(weight, shift, k, top, depth, column, right, sources, targets, pairs, panel)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_panel(weight, shift, k, top, depth, column, right, sources, targets, pairs, panel):  # pyright: ignore
    """Multiply all pairs by one panel of weights: WIDTH columns, or the rest of them in pieces of LANES."""
    wide = right - column >= WIDTH
    width = WIDTH if wide else LANES
    for begin in range(column, min(right, column + WIDTH), width):
        if width == weight.shape[2]:
            weights = weight[k, top:].ctypes.data
        else:
            source, step = weight[k, top, shift + begin :].ctypes.data, 4 * weight.shape[2]
            weights = panel.ctypes.data
            if wide:
                copy_panel_wide(source, step, depth, weights, 4 * width)
            else:
                copy_panel_narrow(source, step, depth, weights, 4 * width)
        for tile in range(0, pairs, ROWS):
            source, target = sources.ctypes.data + 8 * tile, targets.ctypes.data + 8 * tile
            if wide:
                multiply_rows_wide(source, target, 4 * top, 4 * begin, weights, depth)
            else:
                multiply_rows_narrow(source, target, 4 * top, 4 * begin, weights, depth)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _list_pairs(lefts, table, rights, k, first, last, left_list, right_list):  # pyright: ignore
    """Addresses of the pairs (lefts[table[row, k]], rights[row]) of rows first to last; returns their number."""
    volume, left_step, right_step = np.int64(table.shape[1]), np.int64(lefts.shape[1]) * 4, np.int64(rights.shape[1]) * 4
    entries = table.ctypes.data + (first * volume + k) * 4
    right_start = rights.ctypes.data + first * right_step
    return list_pairs(
        entries,
        volume * 4,
        last - first,
        lefts.ctypes.data,
        left_step,
        right_start,
        right_step,
        left_list.ctypes.data,
        right_list.ctypes.data,
    )


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _add_products(feats, grad, table, partial):  # pyright: ignore
    """partial[s, k] = sum over the rows o of slab s of feats[table[o, k]] ⊗ grad[o]."""
    n_out, volume = table.shape
    slabs, channels, columns = partial.shape[0], feats.shape[1], grad.shape[1]
    blocks = (channels + PIECE_CHANNELS - 1) // PIECE_CHANNELS
    step = 4 * columns
    for task in prange(slabs * blocks):
        slab = task // blocks
        top = task % blocks * PIECE_CHANNELS
        bottom = min(channels, top + PIECE_CHANNELS)
        lefts = np.empty(PAIR_CHUNK, dtype=np.int64)
        rights = np.empty(PAIR_CHUNK, dtype=np.int64)
        end = n_out * (slab + 1) // slabs
        for first in range(n_out * slab // slabs, end, PAIR_CHUNK):
            for k in range(volume):
                pairs = _list_pairs(feats, table, grad, k, first, min(end, first + PAIR_CHUNK), lefts, rights)
                if pairs == 0:
                    continue
                left, right = lefts.ctypes.data, rights.ctypes.data
                for column in range(0, columns, WIDTH):
                    wide = columns - column >= WIDTH
                    width = WIDTH if wide else LANES
                    for begin in range(column, min(columns, column + WIDTH), width):
                        channel = top
                        while channel < bottom:
                            target = partial[slab, k, channel, begin:].ctypes.data
                            whole = bottom - channel >= ROWS
                            if wide and whole:
                                outer_wide(left, right, 4 * channel, 4 * begin, pairs, target, step)
                            elif wide:
                                outer_wide_row(left, right, 4 * channel, 4 * begin, pairs, target, step)
                            elif whole:
                                outer_narrow(left, right, 4 * channel, 4 * begin, pairs, target, step)
                            else:
                                outer_narrow_row(left, right, 4 * channel, 4 * begin, pairs, target, step)
                            channel += ROWS if whole else 1
