"""The average of the weights over the steps, which is the result; and the network with it in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

SCHEDULES = ("warm-up", "constant")


def decay_at(updates: int, decay: float, schedule: str = "warm-up") -> float:
    """Decay of the average at an update, the first of which, 0, copies.

    "constant" is as published, with 0.9999; "warm-up" forgets faster in the first steps, when the weights are still far off:
    (1 + n) / (10 + n), up to the decay.
    """
    return decay if schedule == "constant" else min(decay, (1 + updates) / (10 + updates))


def moving_average(model: nn.Module, decay: float, schedule: str = "warm-up") -> AveragedModel:
    """Exponential moving average of the weights; buffers are those of the model. `update_parameters(model)` after each step."""

    def average(old: Any, new: Any, updates: Tensor | int) -> None:
        weight = 1 - decay_at(int(updates), decay, schedule)
        for a, b in zip(old, new, strict=True):
            a.lerp_(b, weight)

    return AveragedModel(model, multi_avg_fn=average)


@contextmanager
def swapped(model: nn.Module, average: AveragedModel) -> Iterator[nn.Module]:
    """The model itself with averaged weights and buffers, for evaluation without a second network on the device; its own come back after.

    It is in evaluation mode inside. Nothing may train it there.
    """
    own, averaged = model.state_dict(), average.module.state_dict()
    training = model.training
    _exchange(own, averaged)
    model.eval()
    try:
        yield model
    finally:
        _exchange(own, averaged)
        model.train(training)


@torch.no_grad()
def _exchange(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, tensor in first.items():
        kept = tensor.clone()
        tensor.copy_(second[name])
        second[name].copy_(kept)
