"""ElasticMemory: how many blocks recompute their activations, so that every step fills the memory to the same mark."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError

from .kept_for_backward import KeptForBackward

__all__ = ["ElasticMemory", "ElasticStep"]


@dataclass
class ElasticStep:
    """What `ElasticMemory` did with one step.

    Attributes:
        tokens: of the step.
        ratio: share of the blocks that keep their activations.
        recomputed: blocks that do not; the first ones of the network.
        bytes: measured, once the step is over; 0 before.
    """

    tokens: int
    ratio: float
    recomputed: int
    bytes: int = 0


class ElasticMemory:
    """Learns what tokens cost, and lets as many blocks recompute their activations in the backward pass as the memory asks for.

    Ragged batches are of many sizes. With all blocks checkpointed the large ones fit and the small ones waste a forward pass; with
    none it is the other way round. Memory is modelled as

        bytes ≈ k · tokens · ratio + b,     ratio: share of blocks that keep their activations,

    fitted by least squares to the last steps; for a new step the ratio follows from its tokens and the target. Gradients do not
    depend on the ratio.

    Args:
        limit: bytes that there are. None: those of the CUDA device of the network, asked for at the first step; a CPU needs a number.
        target: share of the limit to fill, in (0, 1].
        max_ratio: highest ratio at first. It grows by `growth` each `refit_every` steps up to 1: a fit to few steps is not
            trusted with all memory.
        refit_every: steps between fits; before the first one the ratio is drawn at random from [0, max_ratio], so that there
            is something to fit.
        ring: steps that are remembered.
        seed: of those draws.
    Raises:
        RangeError, DtypeError: numbers outside their ranges.
    Source: TRELLIS.2, training of the latent flows; published: target 0.75, max_ratio 0.5 (0.25 for 64³ tokens grids), growth 0.1,
        refit_every 500, ring 1000. Differences: the ratio that is fitted is the share of blocks that did keep their activations, not
        the one that was asked for before rounding to blocks; a fit whose slope is not positive (all steps alike) is dropped and the one
        before stays; max_ratio ends at 1; any number of blocks.
    Numerics: on CUDA `bytes` is the allocator's peak during the step, weights and optimiser states among it; elsewhere what
        operations keep for the backward pass (`KeptForBackward`).
    Example:
        >>> memory = ElasticMemory(limit=10_000_000)
        >>> with memory.step(flow, tokens=len(x)) as step:                # flow: LatentFlow with 2 blocks
        ...     flow(x, times, context).feats.square().mean().backward()
        >>> step.recomputed <= 2
        True
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        target: float = 0.75,
        max_ratio: float = 0.5,
        growth: float = 0.1,
        refit_every: int = 500,
        ring: int = 1000,
        seed: int = 0,
    ) -> None:
        where = "ElasticMemory"
        if limit is not None and not limit > 0:
            raise RangeError(f"{where}: limit must be a positive number of bytes; got {limit}.")
        for name, value, low in (("target", target, False), ("max_ratio", max_ratio, True), ("growth", growth, True)):
            if not (0 <= value <= 1) or (value == 0 and not low):
                raise RangeError(f"{where}: {name} must be in {'[0' if low else '(0'}, 1]; got {value}.")
        self.limit, self.target, self.growth, self.max_ratio = limit, target, growth, max_ratio
        self.refit_every = require_int(where, "refit_every", refit_every, 1)
        self.ring: deque[tuple[float, float]] = deque(maxlen=require_int(where, "ring", ring, 2))
        self.steps = 0
        self.fitted: tuple[float, float] | None = None
        self._chance = torch.Generator().manual_seed(seed)

    def ratio(self, tokens: int) -> float:
        """Share of the blocks that may keep their activations in a step of so many tokens; a draw before the first fit.

        Raises:
            RangeError: no limit is known yet, which `step` finds out on CUDA.
        """
        require_int("ElasticMemory.ratio", "tokens", tokens, 0)
        if self.fitted is None:
            return self.max_ratio * float(torch.rand((), generator=self._chance))
        if self.limit is None:
            raise RangeError("ElasticMemory.ratio: the limit is not known; pass limit=, the bytes that there are.")
        k, b = self.fitted
        free = self.target * self.limit - b
        return min(max(free / (k * max(tokens, 1)), 0.0), self.max_ratio)

    def record(self, tokens: int, ratio: float, bytes: float) -> None:
        """Remember what a step took, and fit anew each `refit_every` steps."""
        self.ring.append((tokens * ratio, float(bytes)))
        self.steps += 1
        if self.steps % self.refit_every:
            return
        self.fitted = least_squares(self.ring) or self.fitted
        self.max_ratio = min(1.0, self.max_ratio + self.growth)

    @contextmanager
    def step(self, network: nn.Module, tokens: int) -> Iterator[ElasticStep]:
        """Set which blocks of a network recompute, and measure what is inside: a forward and a backward pass.

        Args:
            network: with `blocks`, each with a `checkpoint` that can be set: `LatentFlow`, `StructureFlow`, `SSDiT`.
            tokens: rows of the batch.
        Raises:
            DtypeError: a network without such blocks.   RangeError: no limit, and not on a CUDA device. Before anything is changed.
        An error inside is passed on, and its step is not recorded.
        """
        blocks = _blocks(network)
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        if self.limit is None:
            if device.type != "cuda":
                raise RangeError(
                    f"ElasticMemory.step: on {device} nothing says how much memory there is; pass limit= to ElasticMemory, in bytes."
                )
            self.limit = float(torch.cuda.get_device_properties(device).total_memory)
        recomputed = blocks_to_recompute(self.ratio(tokens), len(blocks))
        for i, block in enumerate(blocks):
            block.checkpoint = i < recomputed
        done = ElasticStep(tokens, 1 - recomputed / max(len(blocks), 1), recomputed)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            yield done
            done.bytes = torch.cuda.max_memory_allocated(device)
        else:
            with KeptForBackward() as kept:
                yield done
            done.bytes = kept.bytes
        self.record(tokens, done.ratio, done.bytes)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, in plain values and one tensor."""
        fitted = None if self.fitted is None else list(self.fitted)
        ring = [list(point) for point in self.ring]
        return {"ring": ring, "steps": self.steps, "fitted": fitted, "max_ratio": self.max_ratio, "chance": self._chance.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.ring.clear()
        self.ring.extend((float(x), float(y)) for x, y in state["ring"])
        self.steps, self.max_ratio = int(state["steps"]), float(state["max_ratio"])
        self.fitted = None if state["fitted"] is None else (float(state["fitted"][0]), float(state["fitted"][1]))
        self._chance.set_state(state["chance"])


def blocks_to_recompute(ratio: float, blocks: int) -> int:
    """How many of the first blocks recompute, for a share of blocks that may keep their activations; one more than needed, for safety."""
    return 0 if ratio >= 1 else min(math.ceil((1 - ratio) * blocks) + 1, blocks)


def least_squares(points: deque[tuple[float, float]]) -> tuple[float, float] | None:
    """Slope and intercept of a line through (x, y); None where the slope is not positive, or all x are one."""
    x, y = torch.tensor(list(points), dtype=torch.float64).unbind(1)
    spread = (x - x.mean()).square().sum()
    if float(spread) <= 1e-12 * float(x.square().sum()):
        return None
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    return (float(slope), float(y.mean() - slope * x.mean())) if float(slope) > 0 else None


def _blocks(network: nn.Module) -> list[Any]:
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or any(not isinstance(getattr(block, "checkpoint", None), bool) for block in blocks):
        raise DtypeError(
            f"ElasticMemory.step: network must have blocks with a checkpoint that can be set, as LatentFlow; got {describe(network)}."
        )
    return list(blocks)
