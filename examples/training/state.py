"""Clipping of gradients, and the chance of a step."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import nn


class AdaptiveClip:
    """Clip gradients to a percentile of their recent norms, once there are enough of them; to `limit` at all times.

    Source: TRELLIS.2 trains with the 95th percentile of the last 1000 finite norms and limit 1.
    """

    def __init__(self, limit: float = 1.0, percentile: float = 95.0, window: int = 1000) -> None:
        self.limit, self.percentile, self.window = limit, percentile, window
        self.norms: deque[float] = deque(maxlen=window)

    @property
    def bound(self) -> float:
        if len(self.norms) < self.window:
            return self.limit
        return min(self.limit, float(torch.tensor(self.norms).quantile(self.percentile / 100)))

    def __call__(self, parameters: list[nn.Parameter]) -> tuple[float, bool]:
        """Norm before clipping, and whether it is finite; gradients that are not are left alone, for the step to be skipped."""
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if not math.isfinite(norm):
            return norm, False
        nn.utils.clip_grads_with_norm_(parameters, self.bound, torch.tensor(norm))
        self.norms.append(norm)
        return norm, True


def noise_generator(seed: int, step: int, rank: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The chance of one step in one process. It follows from these numbers, so a checkpoint needs no more than the step."""
    mixed = (seed * 1_000_003 + step) * 1_000_003 + rank
    return torch.Generator(device).manual_seed(mixed % 2**63)
