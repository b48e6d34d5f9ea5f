"""Where on the path: times to train at, and the grids of times that samplers walk down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError

TimeDistribution: TypeAlias = Callable[[int, torch.Generator | None], Tensor]
"""Number of samples and generator → (b,) float32 times in [0, 1]."""


@dataclass(frozen=True)
class UniformTimes:
    """Each time as likely as any other.

    Source: both latent stages of TRELLIS.2.
    Example:
        >>> UniformTimes()(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """

    def __call__(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        count = require_int("UniformTimes", "count", count, 0)
        return torch.rand(count, generator=generator, device=generator.device if generator else None)


@dataclass(frozen=True)
class LogitNormalTimes:
    """sigmoid(mean + std · N(0, 1)): around sigmoid(mean), seldom at the ends.

    Args:
        mean, std: of the logit. TRELLIS and the structure stage of TRELLIS.2: 1, 1.
    Raises:
        RangeError: a mean that is not finite or a std that is not positive.
    """

    mean: float = 1.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise RangeError(f"LogitNormalTimes: mean must be finite and std positive; got {self.mean}, {self.std}.")

    def __call__(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        count = require_int("LogitNormalTimes", "count", count, 0)
        normal = torch.randn(count, generator=generator, device=generator.device if generator else None)
        return torch.sigmoid(self.mean + self.std * normal)


def rescale_time(t: float, factor: float) -> float:
    """t → r t / (1 + (r − 1) t): ends stay, r > 1 pushes times towards noise. Also known as the shift of a schedule."""
    return factor * t / (1 + (factor - 1) * t)


def sampling_times(steps: int, rescale: float = 1.0) -> tuple[float, ...]:
    """steps + 1 times from 1 down to 0: linspace(1, 0), rescaled.

    Raises:
        RangeError: steps below 1, or a rescale that is not positive and finite.
    Source: TRELLIS, TRELLIS.2 (`rescale_t`).   Numerics: float64.
    Example:
        >>> [round(t, 3) for t in sampling_times(4, rescale=3.0)]
        [1.0, 0.9, 0.75, 0.5, 0.0]
    """
    steps, rescale = _checked("sampling_times", steps, rescale)
    return tuple(rescale_time(1 - i / steps, rescale) for i in range(steps + 1))


def shifted_times(steps: int, shift: float, *, train_steps: int = 1000) -> tuple[float, ...]:
    """steps + 1 times from 1 down to 0 as the scheduler of Direct3D-S2 has them: shifted twice, with a jump at the end.

    With f(t) = s t / (1 + (s − 1) t): f(linspace(1, f(1 / train_steps), steps)), then 0; rounded to float32.

    Raises:
        RangeError: steps or train_steps below 1, or a shift that is not positive and finite.
    Source: Direct3D-S2 (arXiv 2505.17412) through FlowMatchEulerDiscreteScheduler of diffusers. `sampling_times(steps, shift)`
        shifts once and spreads evenly; the two differ.
    """
    steps, shift = _checked("shifted_times", steps, shift)
    train_steps = require_int("shifted_times", "train_steps", train_steps, 1)
    lowest = float(torch.tensor(rescale_time(1 / train_steps, shift), dtype=torch.float32))
    grid = torch.linspace(1, lowest, steps, dtype=torch.float64)
    return (*(float(torch.tensor(rescale_time(float(t), shift), dtype=torch.float32)) for t in grid), 0.0)


def _checked(where: str, steps: int, factor: float) -> tuple[int, float]:
    steps = require_int(where, "steps", steps, 1)
    if not (math.isfinite(factor) and factor > 0):
        raise RangeError(f"{where}: the factor on times must be positive and finite; got {factor}.")
    return steps, float(factor)
