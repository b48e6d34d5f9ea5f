"""Choosing the shapes of Triton's tiles by measurement. Nothing here runs unless it is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxgen.core.checks import require_int
from voxgen.core.errors import BackendUnavailable
from voxgen.ops._registry import Call
from voxgen.ops.neighbors import NeighborTable

from . import CONV
from ._reference import conv as convolve_by_definition
from ._triton_shapes import TUNED, TileShape, key_of, rule

CANDIDATES = (
    TileShape(64, 64, 32),
    TileShape(64, 128, 64, warps=4),
    TileShape(128, 64, 64, warps=4),
    TileShape(128, 128, 32, warps=8),
    TileShape(128, 128, 64, warps=8),
    TileShape(128, 128, 64, warps=4, stages=4),
)
ALLOWED = {torch.float32: 2e-3, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest difference from the reference over its largest magnitude: rounding to the dtype, for float32 to TensorFloat32."""


def tune_conv(
    table: NeighborTable,
    channels_in: int,
    channels_out: int,
    dtype: torch.dtype = torch.float16,
    *,
    candidates: Sequence[TileShape] = CANDIDATES,
    repeats: int = 10,
) -> TileShape:
    """Measure tile shapes for one kind of layer on this device and use the fastest from now on, in this process.

    Each candidate is checked once against the reference; one that gives other numbers, or that the device cannot run, is
    left out. The rule's own shape always takes part. The result holds for layers of these channels, this footprint and
    dtype, and for tables within a factor of two of this one's rows. The gradient of the features is a layer with the
    channels exchanged, on the transposed table: tune it by a second call.

    Args:
        table: a typical neighbour table, on the device to tune for.
        channels_in, channels_out: of the layer.
        dtype: float16, bfloat16 or float32 (as `torch.set_float32_matmul_precision` says).
        candidates: shapes to try.
        repeats: runs of each, of which the fastest counts.
    Returns:
        The chosen shape.
    Raises:
        BackendUnavailable: Triton cannot serve the table's device and this dtype, or every candidate was left out.
        RangeError, DtypeError: channels or repeats that are no positive whole numbers.
    """
    require_int("tune_conv", "channels_in", channels_in, 1)
    require_int("tune_conv", "channels_out", channels_out, 1)
    require_int("tune_conv", "repeats", repeats, 1)
    run = CONV.choose("triton", Call(table.device, dtype, False)).load()
    generator = torch.Generator(table.device).manual_seed(0)
    feats = torch.randn(len(table.in_grid), channels_in, generator=generator, device=table.device).to(dtype)
    weight = torch.randn(table.volume, channels_in, channels_out, generator=generator, device=table.device)
    weight = (weight / (table.volume * channels_in) ** 0.5).to(dtype)
    expected = convolve_by_definition(feats, weight, None, table)
    key = key_of(table.device, len(table), channels_in, channels_out, table.volume, dtype)
    times: dict[TileShape, float] = {}
    refused: list[str] = []
    before = dict(TUNED)
    try:
        for shape in dict.fromkeys((*candidates, rule(key))):
            TUNED[key] = shape
            try:
                gap = _difference(run(feats, weight, None, table), expected)
                if gap > ALLOWED[dtype]:
                    refused.append(f"{shape}: differs from the reference by {gap:.2g}")
                else:
                    times[shape] = min(_seconds(lambda: run(feats, weight, None, table), table.device) for _ in range(repeats))
            except _refusals() as error:
                refused.append(f"{shape}: {error}")
    finally:
        TUNED.clear()
        TUNED.update(before)
    if not times:
        raise BackendUnavailable("tune_conv: no tile shape is usable:\n  " + "\n  ".join(refused))
    TUNED[key] = min(times, key=lambda shape: times[shape])
    return TUNED[key]


def _refusals() -> tuple[type[Exception], ...]:
    """What Triton raises for a shape that a device has no room for, or that it cannot compile."""
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources

    return CompilationError, OutOfResources


def _difference(actual: Tensor, expected: Tensor) -> float:
    if expected.numel() == 0:
        return 0.0
    gap = (actual.float() - expected.float()).abs().max() / expected.float().abs().max().clamp_min(1e-30)
    return float(gap.nan_to_num(float("inf")))


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


__all__ = ["CANDIDATES", "TileShape", "tune_conv"]
