"""Plain torch operations on any device: pieces of equal length, then the pieces of each segment, and so on.

torch's own reduction takes one thread a segment and channel, row by row, which is slow and inexact for the few long segments
of a batch. Pieces start at their segment, so that sums do not depend on what else is in the batch, and there is an upper
bound for their number, so that the CPU does not wait for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 64
"""Rows that one thread reduces."""
EMPTY = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}


def reduce(values: Tensor, offsets: Tensor, how: str) -> Tensor:
    """(n, c) float32 or float64 to (b, c), 0 for empty segments."""
    lengths, bounds = offsets.diff(), offsets
    longest = len(values)  # at most: the true one is not read, as the CPU would wait for it
    while longest > PIECE:
        pieces = (bounds.diff() + PIECE - 1) // PIECE
        ends = pieces.cumsum(0)
        number = torch.arange(len(values) // PIECE + len(pieces), device=values.device)  # more than there are
        owner = torch.searchsorted(ends, number, right=True).clamp_max(len(pieces) - 1)
        starts = bounds[owner] + (number - (ends - pieces)[owner]) * PIECE
        starts = torch.cat((starts.minimum(bounds[-1]), bounds[-1:]))
        values = _one_thread_each(values, starts, how)
        bounds = torch.nn.functional.pad(ends, (1, 0))
        longest = -(-longest // PIECE)
    result = _one_thread_each(values, bounds, how)
    return result if how == "sum" else result.masked_fill((lengths == 0)[:, None], 0)


def _one_thread_each(values: Tensor, bounds: Tensor, how: str) -> Tensor:
    return torch.segment_reduce(values.contiguous(), how, offsets=bounds, axis=0, unsafe=True, initial=EMPTY[how])
