"""What residual blocks do between their convolutions, without copies that nobody needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._norm import LayerNorm32


def activate(norm: nn.Module, feats: Tensor) -> Tensor:
    """SiLU of the normalised features; in place where nothing else needs them, as fresh memory costs more than the arithmetic."""
    h = norm(feats)
    return F.silu(h, inplace=isinstance(norm, LayerNorm32) and not torch.is_grad_enabled())


def add(result: Tensor, shortcut: Tensor) -> Tensor:
    """result + shortcut; without gradients into the memory of the result, which must be the caller's own."""
    if torch.is_grad_enabled() or result.dtype != shortcut.dtype:  # autograd forbids it where an engine gave a view of its memory
        return result + shortcut
    return result.add_(shortcut)
