"""What a training run carries from step to step, and keeping it whole on disk."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from voxgen.core.atomic import atomic_write


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights; it forgets faster in the first steps, when the weights are still far off."""

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        n = float(updates)
        return torch.lerp(old, new, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, avg_fn=average)


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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at once: whoever kills the run finds the old one or the new one, both whole."""
    with atomic_write(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, and remove what a killed run left half-written beside it."""
    for leftover in path.parent.glob(".voxgen-*.tmp"):
        leftover.unlink(missing_ok=True)  # several processes read
    return torch.load(path, map_location="cpu", weights_only=True)
