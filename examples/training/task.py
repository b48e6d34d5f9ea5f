"""What an example is, and the data that it trains on: what the run of `run` needs to know of either."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .run import Run

S = TypeVar("S")
"""A sample."""


class Batch(Protocol):
    """What one step trains on. Its length is in the unit of the budget: voxels or tokens."""

    def __len__(self) -> int: ...
    def to(self, device: torch.device, /) -> Any: ...


class Data(Protocol[S]):
    """Samples to train on: a map-style data set for torch's `DataLoader`, whose items are (index, what `draw` gave).

    Attributes:
        sizes: of each sample, in the unit of the budget.
    It may have `names` of the samples, which messages then give in the place of their numbers.
    """

    @property
    def sizes(self) -> Sequence[int]: ...
    def __len__(self) -> int: ...

    def draw(self, chance: torch.Generator, /) -> Any:
        """What is left to chance about one sample of one batch, in plain values: the order of its axes, which of its pictures."""
        ...

    def __getitem__(self, item: tuple[int, Any], /) -> S: ...

    def batched(self, samples: list[S], /) -> Batch:
        """Several samples as one batch."""
        ...


@dataclass(frozen=True)
class Prepared(Generic[S]):
    """What a run works on: samples to train on, and held-out samples in whatever form the task measures them; they have a length."""

    training: Data[S]
    held_out: Any


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What an example trains. `VAETask` and `FlowTask` say how.

    Attributes:
        name: of the default folder.   title: of pictures and tables.   description: for --help.
        network, tiny: the configuration, and that of --smallest.
        unit: of sizes and budget: "voxels" or "tokens".
        budget: the default of --budget.   smallest_budget: that of --smallest.
        learning_rate: the default of --learning-rate.
        options: adds arguments of the example's own.   fixed: the names of those that a resumed run must share.
        defaults: of arguments, where they differ from the common ones.
        shown: names of facts that stand in the progress bar and the summary.
    A module that a task builds gives `LossTerms` from `forward(batch, generator)`. It may have an attribute `progress`, which is set to how
    far the run is, 0 to 1, before each step; `facts`, numbers to show and write beside the losses; and a method `groups`, groups of
    parameters for the optimiser, whose `scale` is a factor on the learning rate.
    """

    name: str
    title: str
    description: str
    network: Mapping[str, Any]
    tiny: Mapping[str, Any]
    unit: str
    budget: int
    smallest_budget: int
    learning_rate: float
    options: Callable[[argparse.ArgumentParser], None] | None = None
    fixed: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    FIXED: ClassVar[tuple[str, ...]] = ()
    """Names of arguments of this kind of task that a resumed run must share."""

    @abstractmethod
    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this kind of task."""

    @abstractmethod
    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        """Make arguments that follow from others, check them, and leave none of them None that a run needs."""

    @abstractmethod
    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        """Find or make the data. One process does it first; the others then find it."""

    @abstractmethod
    def build(self, arguments: argparse.Namespace, prepared: Prepared[Any]) -> nn.Module:
        """The module to train, with fresh weights."""

    def result(self, module: nn.Module) -> nn.Module:
        """The network in a module that `build` made: what is measured and saved."""
        return module

    @abstractmethod
    def glance(self, run: Run, held_out: Any) -> tuple[Tensor, dict[str, float]]:
        """What the averaged weights make of held-out samples, on the way: a picture (h, w, 3), and numbers."""

    @abstractmethod
    def finish(self, run: Run, held_out: Any) -> dict[str, float]:
        """Write the averaged weights, measure them, show it. Returns the summary."""

    def chosen(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """The configuration of the network that arguments ask for."""
        return dict(self.tiny if arguments.smallest else self.network)
