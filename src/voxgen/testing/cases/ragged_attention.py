"""Inputs of full attention over ragged batches: to the own sample, and to another batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from voxgen.ops.ragged_attention import ragged_attention

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """Widths and groups that fit no tile; samples of equal lengths; empty samples, without keys, without queries. Small."""
    return [
        _case(dtype, "no-samples", (), None, 2, 1, 8),
        _case(dtype, "empty", (0, 0), None, 4, 2, 8),
        _case(dtype, "one-row", (1,), None, 2, 1, 16),
        _case(dtype, "self-d32", (28, 0, 17), None, 2, 1, 32),
        _case(dtype, "self-equal-lengths", (12, 12, 12), None, 3, 3, 24),
        _case(dtype, "self-d7", (20, 3), None, 6, 2, 7),
        _case(dtype, "cross-d24", (28, 0, 17, 4, 4), (37, 3, 0, 5, 5), 4, 2, 24),
        _case(dtype, "cross-nothing-seen", (9, 0), (0, 6), 2, 2, 8),
    ]


def _case(dtype: torch.dtype, name: str, counts: Sequence[int], keys: Sequence[int] | None, heads: int, key_heads: int, width: int) -> Case:
    generator = torch.Generator().manual_seed(sum(counts) + 100 * width)
    key_counts = counts if keys is None else keys

    def noise(rows: int, count: int) -> Tensor:
        return torch.randn(width, count, rows, generator=generator, dtype=torch.float64).to(dtype).permute(2, 1, 0)  # not contiguous

    inputs = {"q": noise(sum(counts), heads), "k": noise(sum(key_counts), key_heads), "v": noise(sum(key_counts), key_heads)}

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        q, k, v = given["q"], given["k"], given["v"]
        ends = None if keys is None else bounds(keys).to(q.device)
        scale = None if keys is None else 0.3
        return {"out": ragged_attention(q, k, v, bounds(counts).to(q.device), ends, scale=scale, backend=backend)}

    return Case(name, inputs, run, gradients=("q", "k", "v"), facts={"width": width})


def bounds(counts: Sequence[int]) -> Tensor:
    """(b + 1,) int64 where the samples of these lengths begin and end."""
    return torch.tensor(list(accumulate(counts, initial=0)))
