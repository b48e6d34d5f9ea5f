"""The definition, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ._links import Links


def resample(kind: str, feats: Tensor, links: Links, slots: int) -> Tensor:
    """Features of one level to the other.

    Args:
        kind: from children (n, c) to parents: "add" or "max" over each parent's children, (p, c), 0 where it has none;
            "place" each child in its slot, (p, slots · c), zeros elsewhere. From parents (p, slots · c) to children (n, c):
            "take" the child's slot, or all of its parent's where slots is 1.
    """
    parent, slot = links.parent.long(), links.slot.long()
    if kind == "take":
        divided = feats.reshape(links.num_parents, slots, feats.shape[1] // slots)
        return divided[parent, slot if slots > 1 else 0]
    if kind == "place":
        placed = feats.new_zeros(links.num_parents, slots, feats.shape[1])
        return placed.index_put((parent, slot), feats).flatten(1)
    if kind == "max":
        result = feats.new_zeros(links.num_parents, feats.shape[1])
        return result.scatter_reduce(0, parent[:, None].expand_as(feats), feats, "amax", include_self=False)
    wide = feats if feats.dtype == torch.float64 else feats.float()
    return wide.new_zeros(links.num_parents, feats.shape[1]).index_add(0, parent, wide).to(feats.dtype)
