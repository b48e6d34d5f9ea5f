"""Inputs of the reductions over segments of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from voxgen.core.batching import offsets_from_counts
from voxgen.ops.segment import segment_broadcast, segment_reduce, segment_softmax

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

COUNTS = {"no-segments": (), "empty": (0, 0), "one-row": (1,), "three": (40, 0, 25), "long": (0, 1000, 3, 0, 641, 256, 0)}


def cases(dtype: torch.dtype) -> list[Case]:
    """Every function on no, empty, short and long segments; odd channels; equal extremes."""
    found = []
    for name, counts in COUNTS.items():
        for how in ("sum", "mean", "max", "min"):
            found.append(_case(dtype, f"{how}-{name}", counts, 5, segment_reduce, how=how))
        found.append(_case(dtype, f"broadcast-{name}", counts, 3, segment_broadcast))
        found.append(_case(dtype, f"softmax-{name}", counts, 3, segment_softmax))
    found.append(_case(dtype, "sum-many-segments", (2, 0, 1) * 200, 3, segment_reduce, how="sum"))
    found.append(_case(dtype, "softmax-many-segments", (2, 0, 1) * 200, 3, segment_softmax))
    found.append(_case(dtype, "mean-one-channel", COUNTS["long"], 1, segment_reduce, how="mean"))
    found.append(_case(dtype, "max-67-channels", COUNTS["three"], 67, segment_reduce, how="max"))
    found.append(_case(dtype, "sum-no-channels", COUNTS["three"], 0, segment_reduce, how="sum"))
    return found


def _case(dtype: torch.dtype, name: str, counts: Sequence[int], channels: int, function: Callable[..., Tensor], **options: str) -> Case:
    rows = len(counts) if function is segment_broadcast else sum(counts)
    generator = torch.Generator().manual_seed(rows + 100 * channels)
    values = torch.randn(channels, rows, generator=generator, dtype=torch.float64)
    values = (values * 8).round() / 8  # so that extremes come several times
    offsets = offsets_from_counts(counts)

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"out": function(inputs["values"], inputs["offsets"], backend=backend, **options)}

    return Case(name, {"values": values.to(dtype).T, "offsets": offsets}, run, gradients=("values",))  # not contiguous
