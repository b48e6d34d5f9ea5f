"""Activation checkpointing: less memory in training, for a second forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def run(enabled: bool, function: Callable[..., T], *args: Any) -> T:
    """Call a function; if enabled and gradients are wanted, drop its intermediate results and make them again in the backward pass."""
    if not (enabled and torch.is_grad_enabled()):
        return function(*args)
    from torch.utils.checkpoint import checkpoint

    return checkpoint(function, *args, use_reentrant=False)  # pyright: ignore[reportReturnType] (its stub says nothing of results)
