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
    """result + shortcut, into the memory of the result unless the sum has another dtype (autocast). No convolution keeps its result."""
    return result.add_(shortcut) if result.dtype == shortcut.dtype else result + shortcut
