"""Condition tokens of a ragged batch behind each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.batching import pack
from voxgen.core.checks import FLOATS, require_same_device, require_tensor

from .cross_attention import Context

__all__ = ["PackedContext", "pack_context"]


@dataclass(frozen=True, eq=False)
class PackedContext:
    """Condition tokens of all samples in one tensor, as `RaggedCrossAttention` uses them. Made by `pack_context`.

    Attributes:
        tokens: (m, c) floats, sample after sample.
        offsets: (b + 1,) int64 bounds of the samples in tokens, on their device.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
    """

    tokens: Float[Tensor, "m c"]
    offsets: Offsets

    def __post_init__(self) -> None:
        where = "PackedContext"
        require_tensor(where, "tokens", self.tokens, ("m", "c"), FLOATS)
        require_tensor(where, "offsets", self.offsets, ("b + 1",), (torch.int64,))
        require_same_device(where, tokens=self.tokens, offsets=self.offsets)

    @property
    def batch_size(self) -> int:
        return len(self.offsets) - 1


def pack_context(context: Context) -> PackedContext:
    """Put the condition tokens of all samples into one tensor. Do it once for all blocks of a network.

    Args:
        context: (b, m, c), or one (m_s, c) tensor a sample, at least one; see `Context`.
    Raises:
        ShapeError, DtypeError: not condition tokens of one width and dtype, or an empty list.
    Example:
        >>> pack_context([torch.zeros(7, 24), torch.zeros(0, 24)]).offsets.tolist()
        [0, 7, 7]
    """
    where = "pack_context"
    if isinstance(context, Tensor):
        b, m, _ = require_tensor(where, "context", context, ("b", "m", "c"), FLOATS).shape
        return PackedContext(context.flatten(0, 1), m * torch.arange(b + 1, device=context.device))
    for i, tokens in enumerate(context):
        require_tensor(where, f"context[{i}]", tokens, ("m", context[0].shape[-1]), (context[0].dtype,), hint="As the first.")
    return PackedContext(*pack(context))
