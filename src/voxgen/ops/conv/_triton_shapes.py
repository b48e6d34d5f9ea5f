"""Shapes of the Triton kernels' tiles: a rule, and what a measurement put in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

FEW_ROWS = 50_000
"""Below this many rows tiles are smaller, so that there are enough of them, and their masks more alike."""
MAX_PARTS = 16


@dataclass(frozen=True)
class TileShape:
    """How a kernel is cut.

    Args:
        rows: of a tile; a power of two, at least 16.
        columns: output channels of a tile; a power of two, at least 16.
        depth: input channels of one step; a power of two, at least 16.
        warps, stages: as Triton's `num_warps` and `num_stages`.
        parts: over how many programs the sum of one tile is split; None decides by how many tiles there are.
    """

    rows: int
    columns: int
    depth: int
    warps: int = 4
    stages: int = 3
    parts: int | None = None


@dataclass(frozen=True)
class ShapeKey:
    """For what a tile shape holds."""

    device: str
    log2_rows: int
    channels_in: int
    channels_out: int
    volume: int
    dtype: torch.dtype


TUNED: dict[ShapeKey, TileShape] = {}
"""Shapes found by `voxgen.ops.conv.tuning.tune_conv` in this process."""


def key_of(device: torch.device, rows: int, channels_in: int, channels_out: int, volume: int, dtype: torch.dtype) -> ShapeKey:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return ShapeKey(name, max(rows, 1).bit_length(), channels_in, channels_out, volume, dtype)


def shape_for(key: ShapeKey) -> TileShape:
    """The tuned shape, else the rule's."""
    return TUNED[key] if key in TUNED else rule(key)


def rule(key: ShapeKey) -> TileShape:
    """One shape for each kind of work, without measuring."""
    columns, depth = _power(key.channels_out, 128), _power(key.channels_in, 64 if key.dtype != torch.float32 else 32)
    rows = 64 if key.log2_rows <= FEW_ROWS.bit_length() else 128
    return TileShape(rows, columns, depth, warps=8 if rows * columns >= 128 * 128 else 4)


def parts_for(shape: TileShape, programs: int, steps: int, device: torch.device) -> int:
    """Over how many programs to split each sum, so that every multiprocessor has work."""
    if shape.parts is not None:
        return shape.parts
    if device.type != "cuda":
        return 1
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(MAX_PARTS, wanted // max(programs, 1), steps))


def _power(channels: int, most: int) -> int:
    power = 16
    while power < min(channels, most):
        power *= 2
    return power
