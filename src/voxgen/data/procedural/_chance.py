"""The random draws of one asset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Chance:
    """Draws that depend on the numbers given alone: not on threads, processes, or what else is drawn."""

    def __init__(self, *numbers: int) -> None:
        self._stream = np.random.Generator(np.random.PCG64(list(numbers)))
        self.drawn: dict[str, float | int | str] = {}
        """The draws that were given a name: the parameters of the asset."""

    def between(self, low: float, high: float, name: str = "") -> float:
        """Evenly in [low, high)."""
        return self._kept(name, low + (high - low) * float(self._stream.random()))

    def count(self, low: int, high: int, name: str = "") -> int:
        """A whole number, both ends included."""
        return self._kept(name, low + int((high - low + 1) * self._stream.random()))

    def pick(self, choices: Sequence[T], name: str = "") -> T:
        choice = choices[int(len(choices) * self._stream.random())]
        if name:
            self.drawn[name] = choice if isinstance(choice, (str, int, float)) else getattr(choice, "__name__", str(choice))
        return choice

    def likely(self, share: float, name: str = "") -> bool:
        """True in this share of all cases."""
        return self._kept(name, bool(self._stream.random() < share))

    def array(self, *shape: int) -> np.ndarray:
        """Evenly in [0, 1)."""
        return self._stream.random(shape)

    def _kept(self, name: str, value: T) -> T:
        if name:
            self.drawn[name] = value  # pyright: ignore[reportArgumentType]
        return value
