"""ChildPredictor: which children of each cell the surface touches, and the threshold that belongs to its weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_finite, require_same_device, require_tensor
from voxgen.core.errors import RangeError

from ._checks import require_channels, require_input
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._residual import zeroed
from ._residual_resample import CHILDREN
from ._sums import add

CHUNK = 1 << 16
"""Cells whose hidden features are made at once where no gradient is wanted."""


class ChildPredictor(nn.Module):
    """Logits of the eight children of each cell, and the decision that is made of them.

    norm, linear map of each cell plus a convolution over its neighbours, SiLU, linear map, SiLU, linear map to eight logits. Each child
    has its own row in the last map of its parent's features, so nothing as wide as the features is ever made for all 8p candidates.

    Args:
        channels: C.
        hidden: H; None takes C.
        context: False leaves the convolution out, so that each cell stands alone.
    Parameters:
        norm.weight, norm.bias: (C,).   own.weight: (H, C).   own.bias: (H,).   context.weight: (27, C, H), zero at first.
        hidden.weight: (H, H).   hidden.bias: (H,).   logits.weight: (8, H).   logits.bias: (8,).
    Buffer:
        threshold: () float32, stored with the weights: a child is kept where its logit is above it. 0 at first, a probability of
        one half; `calibrate` sets it by recall.
    Raises:
        RangeError: a width below 1. By `forward`, as `SparseConv3d`.
    Takes (p cells, C), returns (p, 8), slot = x + 2y + 4z. Differentiable. Empty tensors and samples are legal.
    Cost: 2CH · (pairs + 1) + 2H² + 16H operations a cell; (p, H) floats, and with gradients three times that.
    Source: Sparse-Up, mask of its upsampling module; the paper states no network.
    Example:
        >>> predictor = ChildPredictor(32)
        >>> predictor(y).shape[1]                                         # y: 32 channels on structure.parents
        8
        >>> predictor.calibrate(predictor(y).detach(), structure.mask(), recall=0.99) == float(predictor.threshold)
        True
    """

    threshold: Tensor

    def __init__(self, channels: int, hidden: int | None = None, *, context: bool = True) -> None:
        super().__init__()
        width = channels if hidden is None else hidden
        require_channels("ChildPredictor", channels=channels, hidden=width)
        self.channels = channels
        self.norm = LayerNorm32(channels)
        self.own = nn.Linear(channels, width)
        self.context = zeroed(SparseConv3d(channels, width, bias=False)) if context else None
        self.hidden = nn.Linear(width, width)
        self.logits = nn.Linear(width, CHILDREN)
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x: SparseTensor) -> Float[Tensor, "p 8"]:
        """Logits of the children of each cell of x."""
        require_input("ChildPredictor", x, self.channels, self.logits.weight)
        normed = x.with_feats(self.norm(x.feats))
        h = self.own(normed.feats)
        if self.context is not None:
            h = add(self.context(normed).feats, h)
        if torch.is_grad_enabled():
            return self._head(h)
        return torch.cat([self._head(part) for part in h.split(CHUNK)])

    def _head(self, h: Tensor) -> Tensor:
        return self.logits(F.silu(self.hidden(F.silu(h))))

    @torch.no_grad()
    def keep(self, logits: Float[Tensor, "p 8"]) -> Bool[Tensor, "p 8"]:
        """Children above the threshold, and of each cell the one with the largest logit, because every true cell has a child."""
        require_tensor("ChildPredictor.keep", "logits", logits, ("p", CHILDREN), FLOATS)
        best = F.one_hot(logits.argmax(1), CHILDREN).bool() if len(logits) else logits > 0
        return (logits > self.threshold) | best

    @torch.no_grad()
    def calibrate(self, logits: Float[Tensor, "p 8"], targets: Bool[Tensor, "p 8"], recall: float = 0.99) -> float:
        """Set the threshold to the highest one at which this share of the true children is kept, and return it.

        Args:
            logits: (p, 8) on shapes that were not trained on.
            targets: (p, 8) bool, `structure.mask()`.
            recall: share of the true children, in (0, 1].
        Raises:
            RangeError: a recall outside (0, 1], no true child, or logits that are not finite.   ShapeError, DtypeError, DeviceError:
            tensors that do not fit each other.
        """
        where = "ChildPredictor.calibrate"
        require_tensor(where, "logits", logits, ("p", CHILDREN), FLOATS)
        require_tensor(where, "targets", targets, tuple(logits.shape), (torch.bool,), hint="Structure.mask() of the true cells.")
        require_same_device(where, logits=logits, targets=targets)
        if not 0 < recall <= 1:
            raise RangeError(f"{where}: recall must lie in (0, 1]; got {recall}.")
        require_finite(where, "logits", logits)
        true = logits[targets].float().sort().values
        if len(true) == 0:
            raise RangeError(f"{where}: at least one target must be true; all of {targets.numel()} are false.")
        lowest = true[len(true) - math.ceil(recall * len(true))]
        self.threshold.copy_(torch.nextafter(lowest, lowest.new_tensor(-math.inf)))
        return float(self.threshold)
