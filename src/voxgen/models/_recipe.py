"""Recipe: how a network is made, and the fields in which a build may differ from its usual configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """A function that makes a network, and a value for each of its arguments."""

    make: Callable[..., nn.Module]
    fields: Mapping[str, Any]

    def __call__(self, **overrides: Any) -> nn.Module:
        return self.make(**{**self.fields, **overrides})
