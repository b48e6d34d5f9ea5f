"""ClassifierFreeGuidance: two passes of a network mixed, and the condition dropped in training that makes it possible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxgen.core.errors import RangeError

from ._batch import B, combine, deviation, filled, spread
from .path import RectifiedFlow, Velocity


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """v = g v_positive + (1 − g) v_negative, within an interval of times, optionally brought back to the spread of v_positive.

    Args:
        strength: g. 1 takes the positive pass only, 0 the negative only. TRELLIS' own number w is g − 1.
        interval: (low, high) times, both included, in which it counts; outside of it the positive pass is all.
        rescale: φ in [0, 1]: share of the guided x₀ that is scaled to the standard deviation that x₀ has by the positive pass,
            for each sample. 0 leaves it out.
        always_both: run both passes also at g = 1, as Direct3D-S2 does. The result is the same up to rounding.
    Raises:
        RangeError: a strength that is not finite, an interval that is none, a rescale outside [0, 1].
    Source: J. Ho and T. Salimans (arXiv 2207.12598); interval: T. Kynkäänniemi et al. (arXiv 2404.07724); rescale: S. Lin et al.
        (arXiv 2305.08891), here of x₀, with the conventions of TRELLIS.2 (see `deviation` of dense and sparse batches).
    Example:
        >>> guidance = ClassifierFreeGuidance(7.5, interval=(0.6, 1.0), rescale=0.5)
        >>> guidance.counts_at(0.6), guidance.counts_at(0.5)
        (True, False)
    """

    strength: float = 3.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    always_both: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise RangeError(f"ClassifierFreeGuidance: strength must be finite; got {self.strength}.")
        if not self.interval[0] <= self.interval[1]:
            raise RangeError(f"ClassifierFreeGuidance: interval must be (low, high); got {self.interval}.")
        if not 0 <= self.rescale <= 1:
            raise RangeError(f"ClassifierFreeGuidance: rescale must lie in [0, 1]; got {self.rescale}.")

    def counts_at(self, t: float) -> bool:
        """Whether the interval holds t."""
        return self.interval[0] <= t <= self.interval[1]

    def __call__(self, flow: RectifiedFlow, model: Velocity, x: B, t: float, positive: Any, negative: Any) -> B:
        """The velocity at x and t.

        Args:
            flow: gives the network its times, and turns velocities into x₀ for the rescale.
            model: see `Velocity`; the positive pass comes first.
            x: the batch.   t: one time for all of it.
            positive, negative: conditions, passed through.
        """
        time = filled(x, t)
        seen = flow.network_times(time)
        if not self.counts_at(t):
            return model(x, seen, positive)
        if self.strength == 1 and not self.always_both:
            return model(x, seen, positive)
        if self.strength == 0:
            return model(x, seen, negative)
        with_condition = model(x, seen, positive)
        without = model(x, seen, negative)
        g = self.strength
        if self.always_both:  # the order of Direct3D-S2, which half types notice
            guided = combine(without, lambda n, p: n + g * (p - n), with_condition)
        else:
            guided = combine(with_condition, lambda p, n: g * p + (1 - g) * n, without)
        return self._rescaled(flow, x, time, with_condition, guided) if self.rescale else guided

    def _rescaled(self, flow: RectifiedFlow, x: B, time: Tensor, positive: B, guided: B) -> B:
        aim, data = flow.data(x, positive, time), flow.data(x, guided, time)
        ratio = spread(deviation(aim) / deviation(data), data)
        share = self.rescale
        mixed = combine(data, lambda d: share * (d * ratio) + (1 - share) * d)
        return flow.velocity(x, mixed, time)


def drop_condition(condition: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Zero the condition of each sample with probability `rate`, so that one network learns both passes.

    Args:
        condition: (b, ...) any float dtype.
        rate: in [0, 1]; 0.1 in all published systems.
    Returns:
        A new tensor; gradients reach what is kept.
    Raises:
        RangeError: rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise RangeError(f"drop_condition: rate must lie in [0, 1]; got {rate}.")
    device = condition.device if generator is None else generator.device
    keep = (torch.rand(len(condition), generator=generator, device=device) >= rate).to(condition.device)
    return torch.where(keep.reshape(-1, *[1] * (condition.ndim - 1)), condition, 0)
