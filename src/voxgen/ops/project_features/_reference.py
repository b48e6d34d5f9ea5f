"""The definition: view by view, the four texels of each point, each with its share."""

from __future__ import annotations

from torch import Tensor


def weighted_sum(rows: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Σ over views and texels of share · row: rows (m, c), index and share (v, p, 4) → (p, c)."""
    total = rows.new_zeros(index.shape[1], rows.shape[1])
    for places, weights in zip(index, share, strict=True):
        for k in range(4):
            total = total + rows.index_select(0, places[:, k]) * weights[:, k, None]
    return total
