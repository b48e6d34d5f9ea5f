"""A training run whose steps take milliseconds: a flow on random tokens. Tests of faults and of several processes run it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training import run
from training.task import Prepared, Task

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.losses import LossTerms
from voxgen.models import LatentFlow
from voxgen.testing.grids import random_grid

CHANNELS = 4


@dataclass(frozen=True)
class Tokens:
    """Random latents of some samples, and whether one of them breaks the gradient."""

    latent: SparseTensor
    breaking: bool = False

    def __len__(self) -> int:
        return len(self.latent)

    def to(self, device: torch.device) -> Tokens:
        return replace(self, latent=self.latent.to(device))


class RandomTokens:
    """`count` samples of 3 to 40 tokens. One may hold a NaN (`poisoned`), one break the gradient of a finite loss (`breaking`)."""

    def __init__(self, count: int, poisoned: int | None = None, breaking: int | None = None) -> None:
        chance = torch.Generator().manual_seed(5)
        self.sizes = torch.randint(3, 41, (count,), generator=chance).tolist()
        self.names = [f"asset {index}" for index in range(count)]
        self.poisoned, self.breaking = poisoned, breaking

    def __len__(self) -> int:
        return len(self.sizes)

    def draw(self, chance: torch.Generator) -> float:
        return float(torch.rand((), generator=chance))

    def __getitem__(self, item: tuple[int, float]) -> Tokens:
        index, scale = item
        feats = torch.randn(self.sizes[index], CHANNELS, generator=torch.Generator().manual_seed(index))
        if index == self.poisoned:
            feats[0, 0] = float("nan")
        return Tokens(SparseTensor(random_grid((self.sizes[index],), 8, seed=index), scale * feats), index == self.breaking)

    def batched(self, samples: list[Tokens]) -> Tokens:
        grid = VoxelGrid.batched([sample.latent.grid for sample in samples])
        feats = torch.cat([sample.latent.feats for sample in samples])
        return Tokens(SparseTensor(grid, feats), any(sample.breaking for sample in samples))


class Training(nn.Module):
    def __init__(self, width: int, checkpoint: bool = False) -> None:
        super().__init__()
        self.flow = LatentFlow(8, CHANNELS, width, 8, CHANNELS, num_blocks=2, num_heads=2, checkpoint=checkpoint)
        self.condition = nn.Parameter(torch.randn(1, 3, 8))
        for p in self.flow.parameters():
            nn.init.normal_(p, std=0.1)

    def forward(self, batch: Tokens, generator: torch.Generator) -> LossTerms:
        x = batch.latent
        noise = torch.randn(x.feats.shape, generator=generator)
        times = torch.rand(x.grid.batch_size, generator=generator)
        t = times[x.grid.coords[:, 0].long(), None]
        mixed = x.with_feats((1 - t) * x.feats + t * noise)
        found = self.flow(mixed, 1000 * times, self.condition.expand(x.grid.batch_size, -1, -1))
        loss = (found.feats - (noise - x.feats)).square().mean()
        if batch.breaking:
            loss = loss + (0 * self.condition).sum().square().sqrt()  # 0, and the root of 0 has no derivative
        return LossTerms(loss, {"velocity": loss})


@dataclass(frozen=True, kw_only=True)
class TinyTask(Task):
    FIXED = ("samples",)

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=Path)
        parser.add_argument("--samples", type=int, default=24)
        parser.add_argument("--poisoned", type=int)
        parser.add_argument("--breaking", type=int)
        parser.add_argument("--width", type=int, default=16)

    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        pass

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        return Prepared(RandomTokens(arguments.samples, arguments.poisoned, arguments.breaking), [])

    def build(self, arguments: argparse.Namespace, prepared: Prepared[Any]) -> nn.Module:
        return Training(arguments.width)

    def glance(self, run: run.Run, held_out: Sequence[Any]) -> tuple[Tensor, dict[str, float]]:
        return torch.zeros(4, 4, 3), {"sum": float(sum(p.sum() for p in run.averaged.parameters()))}

    def finish(self, run: run.Run, held_out: Sequence[Any]) -> dict[str, float]:
        torch.save(run.averaged.state_dict(), run.arguments.out / "averaged.pt")
        return {"steps": run.step}


TASK = TinyTask(
    name="tiny",
    title="Tiny",
    description="A tiny run",
    network={},
    tiny={},
    unit="tokens",
    budget=60,
    smallest_budget=60,
    learning_rate=1e-2,
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
