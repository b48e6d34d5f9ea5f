"""The gated sum of the branches, and what its gradient needs."""

from __future__ import annotations

import torch
from torch import Tensor


def combine(gate: Tensor, branches: list[Tensor]) -> Tensor:
    """(n, H, d): the sum of gate[:, b] · branches[b], in the dtype of the branches."""
    wide = torch.float64 if branches[0].dtype == torch.float64 else torch.float32
    total = branches[0].to(wide) * gate[:, 0, None, None].to(wide)
    for b in (1, 2):
        total.addcmul_(branches[b].to(wide), gate[:, b, None, None].to(wide))
    return total.to(branches[0].dtype)


def project(grad: Tensor, branches: list[Tensor]) -> Tensor:
    """(3, n, H): the sum of grad · branches[b] over channels.

    Summed over heads it is the gradient of the gate; times the gate it is what the softmax's gradient of each branch
    subtracts. So the gate's gradient costs nothing.
    """
    wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return torch.stack([torch.einsum("nhd,nhd->nh", grad.to(wide), b.to(wide)) for b in branches])
