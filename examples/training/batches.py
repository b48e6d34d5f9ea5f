"""Ragged batches of samples in an order that can be continued anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler

from .task import Batch, Data

Item = tuple[int, Any]
"""Number of a sample, and what chance gave it."""


class BudgetSampler(Sampler[list[Item]]):
    """Endless batches of at most `budget` voxels or tokens. Batch n follows from the seed and n alone, so a run can go on after a kill.

    Each epoch is shuffled and cut greedily; a sample larger than the budget makes a batch of its own. With several processes
    each takes every world-th batch, and all take equally many.

    Args:
        sizes: of each sample.   budget: of a batch.   seed: of the order.
        rank, world: this process, and how many there are.   start: how many batches of this process are done.
        draw: what chance gives a sample of a batch; None: nothing.
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
    ) -> None:
        self.sizes, self.budget, self.seed, self.draw = sizes, budget, seed, draw
        self.rank, self.world, self.start = rank, world, start

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, skip = 0, self.start
        while True:
            batches = self.epoch(epoch)
            own = batches[self.rank :: self.world]
            yield from own[skip:]
            skip = max(0, skip - len(own))
            epoch += 1

    def epoch(self, number: int) -> list[list[Item]]:
        """The batches of an epoch, of all processes."""
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        batches: list[list[Item]] = [[]]
        room = self.budget
        for index in torch.randperm(len(self.sizes), generator=chance).tolist():
            drawn = None if self.draw is None else self.draw(chance)
            if batches[-1] and self.sizes[index] > room:
                batches.append([])
                room = self.budget
            batches[-1].append((index, drawn))
            room -= self.sizes[index]
        missing = -len(batches) % self.world
        return batches + [batches[i % len(batches)] for i in range(missing)]  # some twice, so that no process waits for another


def batches(data: Data[Any], *, budget: int, seed: int, start: int, workers: int, accelerator: Accelerator) -> Iterator[Batch]:
    """Endless batches of this process, from the one after the last that was trained on."""
    sampler = BudgetSampler(data.sizes, budget, seed, accelerator.process_index, accelerator.num_processes, start, data.draw)
    context = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}  # threads do not survive a fork
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=data.batched, num_workers=workers, **context)  # pyright: ignore[reportArgumentType]
    return iter(loader)
