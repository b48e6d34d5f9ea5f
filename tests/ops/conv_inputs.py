"""Operands that the tests of the convolution share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.conv import sparse_conv


def operands(table: Any, channels_in: int, channels_out: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    feats = torch.randn(len(table.in_grid), channels_in, dtype=dtype)
    weight = torch.randn(table.volume, channels_in, channels_out, dtype=dtype) / (table.volume * channels_in) ** 0.5
    return feats, weight, torch.randn(channels_out, dtype=dtype)


def conv(tensors: Sequence[Tensor], table: Any, engine: str = "auto") -> Tensor:
    feats, weight, bias = tensors
    return sparse_conv(feats, weight, bias, table, backend=engine)


def at(volume: Tensor, grid: VoxelGrid) -> Tensor:
    """Rows of a dense (b, c, x, y, z) volume at the cells of a grid."""
    b, x, y, z = grid.coords.long().unbind(1)
    return volume[b, :, x, y, z]
