"""Sums at corners and spreading to cells, which are each other's gradients, for engines that have both in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._corners import CubeCorners

Kernel = Callable[[Tensor, CubeCorners], Tensor]


class Transfer(torch.autograd.Function):
    """Apply one kernel; the gradient is the other's work."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, corners: CubeCorners, kernel: Kernel, adjoint: Kernel) -> Tensor:
        ctx.corners, ctx.kernel, ctx.adjoint = corners, kernel, adjoint
        return kernel(values.detach().contiguous(), corners)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Transfer.apply(grad, ctx.corners, ctx.adjoint, ctx.kernel), None, None, None
