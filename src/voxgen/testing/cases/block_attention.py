"""Inputs of block attention: in windows, on compression tokens, on chosen blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.block_attention import Attended, compression_attention, selection_attention, window_attention
from voxgen.ops.blocks import SSAPlan, partition
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Operands = tuple[Tensor, Tensor, Tensor]
Attend = Callable[[VoxelGrid, Operands, str], Attended]


def cases(dtype: torch.dtype) -> list[Case]:
    """Every kind of lists; head dims and group sizes that fit no tile; empty samples. Small: an interpreter runs them too."""
    three = random_grid((28, 0, 17), 9)
    return [
        _case(dtype, "selection-empty", random_grid((0, 0), 8), 4, 2, 8, _selection(3)),
        _case(dtype, "selection-one-cell", random_grid((1,), 1), 2, 1, 16, _selection(8)),
        _case(dtype, "selection-d16", three, 4, 2, 16, _selection(3)),
        _case(dtype, "selection-d24-group1", three, 3, 3, 24, _selection(5)),
        _case(dtype, "selection-d40-group3", three, 6, 2, 40, _selection(1)),
        _case(dtype, "selection-d7", three, 2, 1, 7, _selection(2)),
        _case(dtype, "selection-one-block", full_grid(4), 16, 1, 32, _selection(2, 4)),
        _case(dtype, "windows-d16", three, 4, 2, 16, lambda g, t, b: window_attention(*t, partition(g, 4, 2), backend=b)),
        _case(dtype, "compression-d16", three, 4, 2, 16, _compression, keys=lambda g: len(_plan(g).compressed)),
    ]


def chosen_blocks(grid: VoxelGrid, size: int, key_heads: int, top_k: int) -> Tensor:
    """(Hk, n, top_k) int32 random distinct blocks of each token's sample, ascending, -1 where there are fewer."""
    blocks = partition(grid, size)
    generator = torch.Generator().manual_seed(top_k)
    rank = torch.rand(key_heads, len(grid), len(blocks), generator=generator)
    rank = rank.masked_fill(blocks.batch[None, None] != grid.batch[None, :, None], 2.0)
    width = min(top_k, len(blocks))
    value, index = rank.sort(2)
    index = index[:, :, :width].masked_fill(value[:, :, :width] > 1, len(blocks)).sort(2).values
    index = torch.where(index == len(blocks), -1, index)
    return torch.nn.functional.pad(index, (0, top_k - width), value=-1).int()


def _selection(top_k: int, size: int = 3) -> Attend:
    def attend(grid: VoxelGrid, tensors: Operands, backend: str) -> Attended:
        key_heads = tensors[1].shape[1]
        cpu = VoxelGrid.from_sorted(grid.coords.cpu(), resolution=grid.resolution, batch_size=grid.batch_size)
        chosen = chosen_blocks(cpu, size, key_heads, top_k).to(grid.device)
        return selection_attention(*tensors, chosen, partition(grid, size), backend=backend)

    return attend


def _plan(grid: VoxelGrid) -> SSAPlan:
    return SSAPlan.build(grid, compression_block=2, selection_block=4)


def _compression(grid: VoxelGrid, tensors: Operands, backend: str) -> Attended:
    return compression_attention(*tensors, _plan(grid), backend=backend)


def _case(
    dtype: torch.dtype,
    name: str,
    grid: VoxelGrid,
    heads: int,
    key_heads: int,
    width: int,
    attend: Attend,
    keys: Callable[[VoxelGrid], int] = len,
) -> Case:
    generator = torch.Generator().manual_seed(len(grid) + 100 * width)

    def noise(rows: int, count: int) -> Tensor:
        return torch.randn(width, count, rows, generator=generator, dtype=torch.float64).to(dtype).permute(2, 1, 0)  # not contiguous

    inputs = {"q": noise(len(grid), heads), "k": noise(keys(grid), key_heads), "v": noise(keys(grid), key_heads)}

    def run(backend: str, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        out, lse = attend(fresh(grid).to(given["q"].device), (given["q"], given["k"], given["v"]), backend)
        blind = lse == -torch.inf  # compared apart, because differences of infinities are not numbers
        return {"out": out, "lse": lse.masked_fill(blind, 0), "blind": blind}

    return Case(name, inputs, run, gradients=("q", "k", "v"))
