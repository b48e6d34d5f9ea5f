"""Networks on a device only while they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["device_of", "placed"]


@contextmanager
def placed(device: torch.device | None, *parts: Any) -> Iterator[None]:
    """Move networks to a device for the time of a block, and back to where they were, also after an error.

    Args:
        device: None leaves them where they are.
        parts: networks; what is no module stays.
    """
    if device is None:
        yield
        return
    homes = {part: device_of(part) for part in parts if isinstance(part, nn.Module)}
    try:
        for part in homes:
            part.to(device)
        yield
    finally:
        for part, home in homes.items():
            part.to(home)


def device_of(module: nn.Module) -> torch.device:
    """Of its first parameter; the CPU where there is none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
