"""The layers that the published block names stand for, and the reach of their convolutions."""

from __future__ import annotations

import torch
from torch import nn

from voxgen.layers import (
    EarlyPruningUpsampler,
    NearestUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SparseConvNeXtBlock,
    SparseResidualBlock,
)

from .config import BlockArgs

REACH = {"SparseConvNeXtBlock3d": 1, "SparseResBlock3d": 2}
"""Cells by which a block's output at a cell depends on its input around it: one for each 3³ convolution in a row."""

UP_REACH = {"SparseResBlockC2S3d": (1, 1), "SparseResBlockUpsample3d": (0, 2)}
"""The same for a block between two levels: convolutions at the coarse level, and after it at the fine level."""


def block(kind: str, channels: int, args: BlockArgs) -> nn.Module:
    """A block that stays at its level: (SparseTensor) → SparseTensor."""
    if kind == "SparseResBlock3d":
        return SparseResidualBlock(channels, checkpoint=args.use_checkpoint)
    return SparseConvNeXtBlock(channels, args.mlp_ratio, checkpoint=args.use_checkpoint)


def down_block(kind: str, channels: int, out_channels: int, args: BlockArgs) -> nn.Module:
    """A block to the coarser level: (SparseTensor, Structure | None) → (SparseTensor, Structure)."""
    make = PooledDownsample if kind == "SparseResBlockDownsample3d" else ResidualDownsample
    return make(channels, out_channels, checkpoint=args.use_checkpoint)


def up_block(kind: str, channels: int, out_channels: int, args: BlockArgs, predicts: bool) -> nn.Module:
    """A block to the finer level; one that predicts is an `EarlyPruningUpsampler`, others take (SparseTensor, Structure)."""
    make = NearestUpsample if kind == "SparseResBlockUpsample3d" else ResidualUpsample
    upsample = make(channels, out_channels, checkpoint=args.use_checkpoint)
    return EarlyPruningUpsampler(channels, out_channels, upsample) if predicts else upsample


def initialize(module: nn.Module) -> None:
    """TRELLIS.2's last step: Xavier-uniform weights and zero biases in all linear layers.

    It comes after the blocks' own initialisation and takes back their zeroed last linear layers; zeroed convolutions stay.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def torso_dtype(blocks: nn.Module, default: torch.dtype) -> torch.dtype:
    """The dtype in which the blocks compute: that of their matrices, whatever `.half()` or `.to()` has made of it."""
    return next((p.dtype for p in blocks.parameters() if p.ndim > 1), default)
