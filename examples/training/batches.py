"""Ragged batches of samples in an order that can be continued anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler

from .balance import cut
from .task import Batch, Data

Item = tuple[int, Any]
"""Number of a sample, and what chance gave it."""


class BudgetSampler(Sampler[list[Item]]):
    """Endless parts of batches, each of at most `budget` voxels or tokens. Batch n follows from the seed and n alone, so a run can go
    on after a kill.

    Each epoch is shuffled and cut into batches greedily; those are divided into world × parts parts of nearly equal size (`balance`),
    of which a process takes `parts` that lie side by side. So the batches depend on world × parts alone: one process with two parts
    trains on what two processes with one part train on. A sample larger than the budget makes a part of its own.

    Args:
        sizes: of each sample.   budget: of a part.   seed: of the order.
        rank, world: this process, and how many there are.   start: how many batches are done.
        draw: what chance gives a sample of a batch; None: nothing.   parts: of a batch in each process.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        budget: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        draw: Callable[[torch.Generator], Any] | None = None,
        parts: int = 1,
    ) -> None:
        self.sizes, self.budget, self.seed, self.draw = sizes, budget, seed, draw
        self.rank, self.world, self.start, self.parts = rank, world, start, parts

    def __iter__(self) -> Iterator[list[Item]]:
        together, first = self.world * self.parts, self.rank * self.parts
        epoch, skip = 0, self.start
        while True:
            parts = self.epoch(epoch)
            for batch in range(skip, len(parts) // together):
                yield from parts[batch * together + first :][: self.parts]
            skip = max(0, skip - len(parts) // together)
            epoch += 1

    def epoch(self, number: int) -> list[list[Item]]:
        """The parts of the batches of an epoch, of all processes."""
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.sizes), generator=chance).tolist()
        drawn = {index: None if self.draw is None else self.draw(chance) for index in order}
        batches = cut(self.sizes, order, self.budget, self.world * self.parts)
        return [[(index, drawn[index]) for index in part] for batch in batches for part in batch]


def sampler(data: Data[Any], arguments: argparse.Namespace, accelerator: Accelerator, start: int) -> BudgetSampler:
    """The order in which a run takes its data, from a step on."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return BudgetSampler(data.sizes, arguments.budget, arguments.seed, rank, world, start, data.draw, arguments.parts)


def batches(data: Data[Any], arguments: argparse.Namespace, accelerator: Accelerator, start: int) -> Iterator[list[Batch]]:
    """Endless batches of this process, each in its parts, from the one after the last that was trained on."""
    workers = arguments.workers
    context = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}  # threads do not survive a fork
    order = sampler(data, arguments, accelerator, start)
    loader: Any = DataLoader(data, batch_sampler=order, collate_fn=data.batched, num_workers=workers, **context)  # pyright: ignore[reportArgumentType]
    parts = iter(loader)
    while True:
        yield list(islice(parts, arguments.parts))
