"""What the released pipeline of Direct3D-S2 does in its own way, for `compat`: noise, times, and where cells lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.batching import counts_from_offsets
from voxgen.core.errors import RangeError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, RectifiedFlow, Sampler, shifted_times
from voxgen.flow._batch import B, with_values
from voxgen.models.pipelines.stages import Generators
from voxgen.ops.blocks import partition

__all__ = ["RoundedTimes", "as_released", "block_order", "direct3d_s2_samplers", "release_frame", "release_noise", "scheduled_sampler"]

BLOCK = 8
"""Side of the blocks by which the release sorts tokens, whatever the network selects by."""
SCHEDULES = {"structure": (50, 6.0), "coarse": (30, 6.0), "fine": (15, 8.0)}
"""Steps and shift of each stage."""


@dataclass(frozen=True)
class RoundedTimes(RectifiedFlow):
    """The path of the release, whose networks are given times in the dtype of the latents: in half precision steps of 0.5 above 512."""

    sigma_min: float = 0.0
    dtype: torch.dtype = torch.float16

    def network_times(self, t: Tensor) -> Tensor:
        return super().network_times(t).to(self.dtype).float()


def direct3d_s2_samplers() -> dict[str, Sampler]:
    """The samplers of the released pipeline: "structure" (50 steps), "coarse" (30), "fine" (15); guidance 7 in all.

    Source: Direct3D-S2, its pipeline and its configuration: FlowMatchEulerDiscreteScheduler with shifts 6, 6 and 8.
    """
    return {stage: scheduled_sampler(steps, shift) for stage, (steps, shift) in SCHEDULES.items()}


def scheduled_sampler(steps: int, shift: float, train_steps: int = 1000) -> Sampler:
    """Euler's steps at the times of the release's scheduler, both passes of the network guided by 7; errors as `shifted_times`."""
    guidance = ClassifierFreeGuidance(7.0, always_both=True)
    times = shifted_times(steps, shift, train_steps=train_steps)
    return EulerSampler(steps, times=times, flow=RectifiedFlow(sigma_min=0.0), guidance=guidance)


def as_released(sampler: Sampler, dtype: torch.dtype) -> Sampler:
    """The sampler with the release's rounding for latents of this dtype; float32 and other samplers than Euler's round nothing."""
    if not isinstance(sampler, EulerSampler) or dtype == torch.float32:
        return sampler
    path = RoundedTimes(sampler.flow.sigma_min, sampler.flow.time_scale, dtype)
    return dataclasses.replace(sampler, flow=path, increment="network")


def release_frame(resolution: int) -> Frame:
    """Where cells of the release lie: the centre of cell i at 2 i / resolution − 1."""
    low, size = -1 - 1 / resolution, 2 / resolution
    return Frame((low, low, low), (size, size, size))


def block_order(rows: Tensor, grid: VoxelGrid) -> Tensor:
    """Rows of the grid in the release's order of tokens: by blocks of 8³ cells, and by cells within a block."""
    return partition(grid, BLOCK).to_block_order(rows)


def release_noise(where: str, like: B, dtype: torch.dtype, device: torch.device, generators: Generators) -> B:
    """Noise as the release draws it: in the dtype of the network, and for tokens in block order.

    Args:
        where: the caller, for messages.
        like: of the shape wanted, dense or on its cells.
        dtype, device: of the result; drawn where the generator is.
        generators: one for a batch of one, one for each of several samples, or None for torch's own.
    Raises:
        RangeError: one generator for several samples, which would not draw what the release draws.
    """
    counts = counts_from_offsets(like.grid.offsets).tolist() if isinstance(like, SparseTensor) else [1] * len(like)
    width = (like.channels,) if isinstance(like, SparseTensor) else tuple(like.shape[1:])
    given = [generators] if isinstance(generators, torch.Generator) else [None] * len(counts) if generators is None else list(generators)
    if len(given) != len(counts):
        raise RangeError(
            f"{where}: the release makes one object at a time, so with compat each of the {len(counts)} samples needs a generator of its "
            f"own; got {len(given)}."
        )
    parts = [_normal((n, *width), g, dtype, device) for n, g in zip(counts, given, strict=True)]
    rows = torch.cat(parts) if parts else torch.empty(0, *width, dtype=dtype, device=device)
    if isinstance(like, SparseTensor):
        rows = partition(like.grid, BLOCK).from_block_order(rows)
    return with_values(like, rows)


def _normal(shape: Sequence[int], generator: torch.Generator | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    drawn = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=drawn).to(device)
