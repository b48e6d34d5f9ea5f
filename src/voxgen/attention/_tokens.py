"""Tokens as the blocks take them: a dense batch (b, n, c), or a SparseTensor with any number of tokens a sample."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, describe, require_tensor
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.ops.segment import segment_broadcast

Tokens = TypeVar("Tokens", Tensor, SparseTensor)


def require_tokens(where: str, x: Any, channels: int) -> int:
    """Number of samples of x; raise unless it is a batch of tokens of this width."""
    if isinstance(x, SparseTensor):
        if x.channels != channels:
            raise ShapeError(f"{where}: x must have {channels} channels; got {x.channels}.")
        require_tensor(where, "x.feats", x.feats, ("n", channels), FLOATS)
        return x.grid.batch_size
    if not isinstance(x, Tensor):
        raise DtypeError(f"{where}: x must be a tensor (b, n, {channels}) or a SparseTensor of {channels} channels; got {describe(x)}.")
    return len(require_tensor(where, "x", x, ("b", "n", channels), FLOATS))


def feats_of(x: Tensor | SparseTensor) -> Tensor:
    """The features of tokens of either kind."""
    return x.feats if isinstance(x, SparseTensor) else x


def with_feats(x: Tokens, feats: Tensor) -> Tokens:
    """Other features for the same tokens."""
    if isinstance(x, SparseTensor):
        return x.with_feats(feats)
    return feats


def per_token(values: Tensor, x: Tensor | SparseTensor) -> Tensor:
    """(b, c) values of samples, in a shape that broadcasts against the features of x."""
    if not isinstance(x, SparseTensor):
        return values[:, None]
    # The rows of a single sample need no copies.
    return values if len(values) == 1 else segment_broadcast(values, x.grid.offsets, rows=len(x))


def dtype_of(layer: nn.Module) -> torch.dtype:
    """Dtype in which a module of one weight computes."""
    return next(layer.parameters()).dtype
