"""Inputs of the fused call of spatial sparse attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.spatial_sparse_attention import spatial_sparse_attention
from voxgen.testing.grids import fresh, random_grid

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """Empty samples, fewer blocks than wanted, both kinds of folding. Small: an interpreter runs them too."""
    three = random_grid((26, 0, 15), 9)
    return [
        _case(dtype, "empty", random_grid((0, 0), 8), 4, 2, 8, 3),
        _case(dtype, "one-cell", random_grid((1,), 1), 2, 1, 16, 2),
        _case(dtype, "one-to-one", three, 4, 2, 16, 2, small=3, large=3, shift=2),
        _case(dtype, "folded", three, 6, 2, 24, 2, small=2, large=4),
        _case(dtype, "own-block", three, 2, 1, 8, 3, small=3, large=3, own_block=True),
        _case(dtype, "all-blocks", three, 4, 1, 16, 8, small=4, large=8, shift=1),
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
    shift: int = 0,
    own_block: bool = False,
) -> Case:
    def plan_of(cells: VoxelGrid) -> SSAPlan:
        return SSAPlan.build(cells, compression_block=small, selection_block=large, window=4)

    generator = torch.Generator().manual_seed(len(grid) + 100 * width)
    n, n_c = len(grid), len(plan_of(grid).compressed)
    shapes = {"q": (n, heads), "k": (n, key_heads), "v": (n, key_heads), "k_c": (n_c, key_heads), "v_c": (n_c, key_heads)}
    inputs = {x: torch.randn(*shape, width, generator=generator, dtype=torch.float64).to(dtype) for x, shape in shapes.items()}
    inputs["gate"] = torch.rand(3, n, generator=generator, dtype=torch.float64).to(dtype).T  # not contiguous

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        q, k, v, k_c, v_c, gate = (given[x] for x in ("q", "k", "v", "k_c", "v_c", "gate"))
        plan = plan_of(fresh(grid).to(q.device))
        out = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, top_k, shift=shift, own_block=own_block, backend=backend)
        return {"out": out}

    return Case(name, inputs, run, gradients=tuple(inputs))
