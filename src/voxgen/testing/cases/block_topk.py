"""Inputs of the choice of blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.block_attention import compression_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.blocks import SSAPlan
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """Blocks with one and with many compression tokens; fewer blocks than wanted; ties. Small: an interpreter runs them too.

    No two scores are nearer to each other than engines round, so all must choose the same.
    """
    three = random_grid((30, 0, 19), 9)
    return [
        _case(dtype, "empty", random_grid((0, 0), 8), 4, 2, 8, 3),
        _case(dtype, "one-cell", random_grid((1,), 1), 2, 1, 16, 2),
        _case(dtype, "top-3-of-2", three, 4, 2, 16, 3, small=2, large=8),
        _case(dtype, "one-to-one", three, 4, 2, 16, 3, small=3, large=3),
        _case(dtype, "folded", three, 6, 2, 24, 2, small=1, large=2),
        _case(dtype, "own-block", three, 4, 1, 40, 4, small=1, large=2, own_block=True),
        _case(dtype, "group-16", random_grid((22,), 8), 16, 1, 32, 1, small=2, large=4),
        _case(dtype, "ties", full_grid(4, 2), 2, 1, 16, 3, small=1, large=2, amplitude=0.0),
        _case(dtype, "ties-own-block", full_grid(4), 3, 3, 16, 2, small=2, large=2, amplitude=0.0, own_block=True),
    ]


def _case(
    dtype: torch.dtype,
    name: str,
    grid: VoxelGrid,
    heads: int,
    key_heads: int,
    width: int,
    top_k: int,
    small: int = 2,
    large: int = 4,
    amplitude: float = 1.0,
    own_block: bool = False,
) -> Case:
    plan = SSAPlan.build(grid, compression_block=small, selection_block=large)
    generator = torch.Generator().manual_seed(len(grid) + 100 * width)
    q, k = (
        (amplitude * torch.randn(rows, count, width, generator=generator, dtype=torch.float64)).to(dtype)
        for rows, count in ((len(grid), heads), (len(plan.compressed), key_heads))
    )
    lse = compression_attention(q, k, k, plan, backend="reference").lse

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = SSAPlan.build(fresh(grid).to(given["q"].device), compression_block=small, selection_block=large)
        return {"chosen": block_topk(given["q"], given["k"], given["lse"], moved, top_k, own_block=own_block, backend=backend)}

    return Case(name, {"q": q, "k": k, "lse": lse}, run)
