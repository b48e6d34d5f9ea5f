"""The definition, in plain torch, segment by segment."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ._bounds import check_bounds


def segment(kind: str, values: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """What the engines compute.

    Args:
        kind: from (n, c) to (b, c): "sum", "max", "min". From (b, c) to (n, c): "broadcast". From (n, c) to (n, c): "softmax".
        rows: n.
    """
    check_bounds(offsets, rows)
    spans = list(pairwise(offsets.tolist()))
    if kind == "broadcast":
        parts = [values[s].expand(end - start, -1) for s, (start, end) in enumerate(spans)]
        return torch.cat([values[:0], *parts])
    function = {"sum": _sum, "max": _max, "min": _min, "softmax": _softmax}[kind]
    return torch.cat([values[:0], *(function(values[start:end]) for start, end in spans)])


def _sum(rows: Tensor) -> Tensor:
    return rows.sum(0, keepdim=True)


def _max(rows: Tensor) -> Tensor:
    return rows.amax(0, keepdim=True) if len(rows) else rows.sum(0, keepdim=True)


def _min(rows: Tensor) -> Tensor:
    return rows.amin(0, keepdim=True) if len(rows) else rows.sum(0, keepdim=True)


def _softmax(rows: Tensor) -> Tensor:
    return rows.softmax(0)
