"""Ragged batches: samples of different lengths packed one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .aliases import Offsets
from .checks import require_tensor
from .errors import ShapeError


def offsets_from_counts(counts: Tensor | Sequence[int]) -> Offsets:
    """(b,) lengths → (b + 1,) int64 bounds, starting at 0."""
    lengths = torch.as_tensor(counts, dtype=torch.int64)
    return torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))


def counts_from_offsets(offsets: Offsets) -> Tensor:
    """(b + 1,) bounds → (b,) int64 lengths."""
    return offsets[1:] - offsets[:-1]


def batch_index(offsets: Offsets, dtype: torch.dtype = torch.int64) -> Tensor:
    """The sample that each packed row belongs to, (n,)."""
    samples = torch.arange(len(offsets) - 1, dtype=dtype, device=offsets.device)
    return samples.repeat_interleave(counts_from_offsets(offsets))


def unpack(rows: Tensor, offsets: Offsets) -> tuple[Tensor, ...]:
    """Packed rows → one view a sample, without copying.

    Raises:
        ShapeError: offsets do not end at the number of rows.
    """
    require_tensor("unpack", "offsets", offsets, ("b + 1",), (torch.int64,))
    if int(offsets[-1]) != len(rows):
        raise ShapeError(f"unpack: offsets must end at the number of rows, {len(rows)}; got {int(offsets[-1])}.")
    return torch.split(rows, counts_from_offsets(offsets).tolist())


def pack(samples: Sequence[Tensor]) -> tuple[Tensor, Offsets]:
    """Samples of equal row shape → packed rows and their bounds. Inverse of `unpack`.

    Raises:
        ShapeError: no samples (the row shape would be unknown).
    """
    if not samples:
        raise ShapeError("pack: at least one sample is needed to know the shape of a row; got an empty list.")
    return torch.cat(list(samples)), offsets_from_counts([len(s) for s in samples]).to(samples[0].device)
