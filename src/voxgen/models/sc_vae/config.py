"""Configurations of the SC-VAE's encoder and decoder, with the names of TRELLIS.2's published constructors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.models._trunk import TORSO_DTYPES

BLOCKS = ("SparseConvNeXtBlock3d", "SparseResBlock3d")
DOWN_BLOCKS = ("SparseResBlockS2C3d", "SparseResBlockDownsample3d")
UP_BLOCKS = ("SparseResBlockC2S3d", "SparseResBlockUpsample3d")


@dataclass(frozen=True)
class BlockArgs:
    """Arguments of the blocks of one level.

    Args:
        mlp_ratio: width of a ConvNeXt block's hidden layer over that of the block.
        use_checkpoint: forget what the blocks of this level (the resampling one included) compute, and compute it again
            in the backward pass.
    """

    mlp_ratio: float = 4.0
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.mlp_ratio, bool) or not isinstance(self.mlp_ratio, (int, float)) or not self.mlp_ratio > 0:
            raise RangeError(f"BlockArgs: mlp_ratio must be a positive number; got {describe(self.mlp_ratio)}.")
        if not isinstance(self.use_checkpoint, bool):
            raise DtypeError(f"BlockArgs: use_checkpoint must be True or False; got {describe(self.use_checkpoint)}.")


@dataclass(frozen=True)
class Levels:
    """What encoder and decoder have in common. Level i has width model_channels[i]; a resampling block joins two levels.

    Args:
        model_channels: widths, in the order in which features pass the levels (fine → coarse in an encoder).
        num_blocks: blocks at each level, the resampling block not counted.
        latent_channels: width of the latent.
        block_type: "SparseConvNeXtBlock3d" or "SparseResBlock3d"; one for each level, or one for all.
        block_args: a mapping for each level with fields of `BlockArgs`, or one for all; None takes the defaults.
        torso_dtype: precision of the weights of linear layers and convolutions in the blocks, "float32", "float16",
            "bfloat16" or "float64"; norms and the first and last layer stay float32.
    Raises:
        RangeError, DtypeError: values that no network can have; the message names the field.
    """

    model_channels: Sequence[int]
    num_blocks: Sequence[int]
    latent_channels: int
    block_type: str | Sequence[str] = "SparseConvNeXtBlock3d"
    block_args: Sequence[BlockArgs | Mapping[str, Any]] | BlockArgs | Mapping[str, Any] | None = None
    torso_dtype: str = "float32"

    def __post_init__(self) -> None:
        where = type(self).__name__
        widths = _integers(where, "model_channels", self.model_channels, 1)
        self._set(model_channels=widths, num_blocks=_integers(where, "num_blocks", self.num_blocks, 0, len(widths)))
        self._set(latent_channels=require_int(where, "latent_channels", self.latent_channels, 1))
        self._set(block_type=_words(where, "block_type", self.block_type, BLOCKS, len(widths)))
        self._set(block_args=_block_args(where, self.block_args, len(widths)))
        if self.torso_dtype not in TORSO_DTYPES:
            raise RangeError(f"{where}: torso_dtype must be one of {', '.join(TORSO_DTYPES)}; got {describe(self.torso_dtype)}.")

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def args(self) -> tuple[BlockArgs, ...]:
        """`block_args`, one a level."""
        return self.block_args  # pyright: ignore[reportReturnType] (made so by __post_init__)

    @property
    def num_levels(self) -> int:
        return len(self.model_channels)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `type(self)(**values)` makes an equal configuration."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class EncoderConfig(Levels):
    """Configuration of `SCEncoder`; the other fields are those of `Levels`.

    Args:
        in_channels: width of the input features, 6 for shapes and for materials.
        down_block_type: "SparseResBlockS2C3d" (residual autoencoding) or "SparseResBlockDownsample3d" (pooling); one for
            each step between levels, or one for all.
    """

    in_channels: int = 6
    down_block_type: str | Sequence[str] = "SparseResBlockS2C3d"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(in_channels=require_int("EncoderConfig", "in_channels", self.in_channels, 1))
        self._set(down_block_type=_words("EncoderConfig", "down_block_type", self.down_block_type, DOWN_BLOCKS, self.num_levels - 1))


@dataclass(frozen=True)
class DecoderConfig(Levels):
    """Configuration of `SCDecoder`; the other fields are those of `Levels`.

    Args:
        out_channels: width of the output, 7 for shapes and 6 for materials.
        up_block_type: "SparseResBlockC2S3d" (residual autoencoding) or "SparseResBlockUpsample3d" (nearest); one for each
            step between levels, or one for all.
        pred_subdiv: whether the resampling blocks predict which children exist (shapes) or must be told (materials).
        voxel_margin: by how much a dual vertex may leave its cell, in cells; None for a decoder without dual vertices.
        resolution: the number that a shape decoder's published file carries. Nothing is computed from it: the resolution
            of what is decoded is the latent grid's, or what `SCVAE.decode` is told.
    """

    out_channels: int = 7
    up_block_type: str | Sequence[str] = "SparseResBlockC2S3d"
    pred_subdiv: bool = True
    voxel_margin: float | None = None
    resolution: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = "DecoderConfig"
        self._set(out_channels=require_int(where, "out_channels", self.out_channels, 1))
        self._set(up_block_type=_words(where, "up_block_type", self.up_block_type, UP_BLOCKS, self.num_levels - 1))
        if not isinstance(self.pred_subdiv, bool):
            raise DtypeError(f"{where}: pred_subdiv must be True or False; got {describe(self.pred_subdiv)}.")
        if self.voxel_margin is not None and not 0 <= self.voxel_margin < float("inf"):
            raise RangeError(f"{where}: voxel_margin must be a number of cells, 0 or more; got {describe(self.voxel_margin)}.")
        if self.resolution is not None:
            self._set(resolution=require_int(where, "resolution", self.resolution, 1))


def torso_name(where: str, torso_dtype: torch.dtype | str | None, use_fp16: bool | None, default: str = "float32") -> str:
    """One name for the two ways of giving the torso's precision: ours, and the published flag."""
    if use_fp16 is not None and not isinstance(use_fp16, bool):
        raise DtypeError(f"{where}: use_fp16 must be True or False; got {describe(use_fp16)}.")
    flagged = None if use_fp16 is None else "float16" if use_fp16 else "float32"
    given = str(torso_dtype).removeprefix("torch.") if torso_dtype is not None else None
    if flagged is not None and given is not None and flagged != given:
        raise RangeError(f"{where}: use_fp16={use_fp16} means torso_dtype {flagged}, but torso_dtype is {given}. Give one of them.")
    return given or flagged or default


def _integers(where: str, name: str, values: Any, minimum: int, count: int | None = None) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise DtypeError(f"{where}: {name} must be a list of whole numbers, one a level; got {describe(values)}.")
    numbers = tuple(require_int(where, f"{name}[{i}]", v, minimum) for i, v in enumerate(values))
    if not numbers or count not in (None, len(numbers)):
        wanted = "at least one entry" if count is None else f"{count} entries, one for each of model_channels"
        raise RangeError(f"{where}: {name} must have {wanted}; got {list(values)}.")
    return numbers


def _words(where: str, name: str, value: Any, allowed: Sequence[str], count: int) -> tuple[str, ...]:
    words = (value,) * count if isinstance(value, str) else tuple(value)
    wrong = [w for w in ((value,) if isinstance(value, str) else words) if w not in allowed]
    if wrong:
        raise RangeError(f"{where}: {name} must be among {', '.join(allowed)}; got {wrong[0]!r}.")
    if len(words) != count:
        raise RangeError(f"{where}: {name} must have {count} entries at this number of levels; got {len(words)}.")
    return words


def _block_args(where: str, value: Any, count: int) -> tuple[BlockArgs, ...]:
    entries = (value or {},) * count if value is None or isinstance(value, (Mapping, BlockArgs)) else tuple(value)
    if len(entries) != count:
        raise RangeError(f"{where}: block_args must have {count} entries, one for each of model_channels; got {len(entries)}.")
    return tuple(entry if isinstance(entry, BlockArgs) else _one_block_args(where, entry) for entry in entries)


def _one_block_args(where: str, entry: Any) -> BlockArgs:
    known = [field.name for field in dataclasses.fields(BlockArgs)]
    if not isinstance(entry, Mapping) or not set(entry) <= set(known):
        raise RangeError(f"{where}: an entry of block_args must be a mapping with {' and '.join(known)}; got {describe(entry)}.")
    return BlockArgs(**entry)
