"""What the operators compute, with plain torch operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def add(feats: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
    """Sums by parent; half precision is summed in float32."""
    if feats.numel() == 0:
        return feats.new_zeros(len(starts) - 1, feats.shape[1])
    wide = feats if feats.dtype == torch.float64 else feats.float()
    return torch.nn.functional.embedding_bag(rows, wide, starts[:-1], mode="sum").to(feats.dtype)


def maximum(feats: Tensor, parent: Tensor, num_parents: int) -> Tensor:
    """Maxima by parent, 0 where it has no child."""
    index = parent.long()[:, None].expand_as(feats)
    return feats.new_zeros(num_parents, feats.shape[1]).scatter_reduce(0, index, feats, "amax", include_self=False)


def place(feats: Tensor, parent: Tensor, slot: Tensor, num_parents: int, slots: int) -> Tensor:
    """Each child's features in its slot."""
    placed = feats.new_zeros(num_parents * slots, feats.shape[1])
    return placed.index_copy_(0, parent.long() * slots + slot, feats).view(num_parents, slots * feats.shape[1])


def take(feats: Tensor, parent: Tensor, slot: Tensor, slots: int) -> Tensor:
    """Each child's slot of its parent's features."""
    index = parent if slots == 1 else parent.long() * slots + slot
    return feats.reshape(len(feats) * slots, feats.shape[1] // slots).index_select(0, index)
