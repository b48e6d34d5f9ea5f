"""Queries of one piece of work, sorted by the blocks they see, and products of a slab of their rows with panels."""

from __future__ import annotations

from numba import njit

from voxgen.ops.conv._tile import (
    LANES,
    ROWS,
    WIDTH,
    multiply_rows_narrow,
    multiply_rows_wide,
    outer_narrow,
    outer_narrow_row,
    outer_wide,
    outer_wide_row,
)

from ._tile import set_rows_narrow, set_rows_wide

SLAB = 32
"""Rows (query and head) at once; a multiple of ROWS is filled up."""
COLUMNS = 128
"""Keys at once; a multiple of WIDTH. With SLAB rows their logits stay in the first-level cache."""
CHUNK_ROWS = 1024
"""Rows of a piece of work, about: their results stay in the second-level cache."""
CHUNK = 256
"""Queries of a piece of work, at most."""


@njit(cache=True, nogil=True, error_model="numpy")
def list_entries(chosen, queries, first, last, entries):  # pyright: ignore
    """Pairs (block, query of the piece) as block · CHUNK + query, ascending; returns their number."""
    count = 0
    for i in range(first, last):
        for t in range(chosen.shape[1]):
            block = chosen[queries[i], t]
            if block >= 0:
                entries[count] = block * CHUNK + i - first
                count += 1
    entries[:count].sort()
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def set_products(sources, targets, rows, panels, columns, depth):  # pyright: ignore
    """targets[r][c] = source[r][:depth] · panel[:, c] for `columns` columns; panels of (depth, width) follow each other.

    sources, targets: addresses of lists of row addresses, filled up to a multiple of ROWS.
    """
    for start in range(0, rows, ROWS):
        source, target = sources + 8 * start, targets + 8 * start
        column = 0
        while column + WIDTH <= columns:
            set_rows_wide(source, target, 4 * column, panels + 4 * column * depth, depth)
            column += WIDTH
        while column < columns:
            set_rows_narrow(source, target, 4 * column, panels + 4 * column * depth, depth)
            column += LANES


@njit(cache=True, nogil=True, error_model="numpy")
def add_to_rows(sources, targets, rows, panels, first, size, columns, depth):  # pyright: ignore
    """targets[r][c] += source[r][:depth] · panel[first : first + depth, c] for `columns` columns; panels are (size, width)."""
    for start in range(0, rows, ROWS):
        source, target = sources + 8 * start, targets + 8 * start
        column = 0
        while column + WIDTH <= columns:
            multiply_rows_wide(source, target, 0, 4 * column, panels + 4 * (column * size + first * WIDTH), depth)
            column += WIDTH
        while column < columns:
            multiply_rows_narrow(source, target, 0, 4 * column, panels + 4 * (column * size + first * LANES), depth)
            column += LANES


@njit(cache=True, nogil=True, error_model="numpy")
def add_products(lefts, rights, pairs, left_columns, right_columns, target, target_step):  # pyright: ignore
    """target[i, j] += sum over pairs of left[i] · right[j]; `target_step` bytes from one row of the target to the next."""
    right = 0
    while right < right_columns:
        wide = right + WIDTH <= right_columns
        left = 0
        while left < left_columns:
            place = target + left * target_step + 4 * right
            if left + ROWS <= left_columns:
                if wide:
                    outer_wide(lefts, rights, 4 * left, 4 * right, pairs, place, target_step)
                else:
                    outer_narrow(lefts, rights, 4 * left, 4 * right, pairs, place, target_step)
                left += ROWS
            else:
                if wide:
                    outer_wide_row(lefts, rights, 4 * left, 4 * right, pairs, place, target_step)
                else:
                    outer_narrow_row(lefts, rights, 4 * left, 4 * right, pairs, place, target_step)
                left += 1
        right += WIDTH if wide else LANES
