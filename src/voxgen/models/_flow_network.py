"""What the flow transformers share: a description of each, and condition tokens as their blocks take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from voxgen.attention import Context, PackedContext, pack_context
from voxgen.attention.cross_attention import require_context
from voxgen.core import SparseTensor
from voxgen.core.checks import require_same_device
from voxgen.core.errors import ShapeError

from .sc_vae.config import TORSO_DTYPES

F = TypeVar("F", bound="FlowNetwork")


class FlowNetwork(nn.Module):
    """Base of networks that are made from plain values and a torso dtype.

    A subclass sets `_fields`, its arguments but for torso_dtype, and has the property `torso_dtype`.
    """

    _fields: dict[str, Any]

    @property
    def torso_dtype(self) -> torch.dtype:
        """Dtype in which the blocks compute: that of their first Linear layer."""
        blocks = self.get_submodule("blocks")
        return next((m.weight.dtype for m in blocks.modules() if isinstance(m, nn.Linear)), self.get_parameter("out_layer.weight").dtype)

    def description(self) -> dict[str, Any]:
        """The configuration in plain values; `save_pretrained` writes it."""
        return {**self._fields, "torso_dtype": str(self.torso_dtype).removeprefix("torch.")}

    @classmethod
    def from_description(cls: type[F], values: Mapping[str, Any]) -> F:
        """The inverse of `description`, with fresh weights."""
        return cls(**{**values, "torso_dtype": TORSO_DTYPES[values["torso_dtype"]]})


def packed_condition(where: str, x: SparseTensor, context: Context, channels: int, dtype: torch.dtype) -> PackedContext:
    """Checked, packed once for all blocks, in their dtype. Raises as `require_context`, and DeviceError."""
    samples = x.grid.batch_size
    require_context(where, context, samples, channels)
    listed = [context] if isinstance(context, Tensor) else context
    require_same_device(where, x=x.feats, **{f"context[{i}]": tokens for i, tokens in enumerate(listed)})
    packed = pack_context(context) if samples else PackedContext(x.feats.new_zeros(0, channels), x.grid.offsets)
    return PackedContext(packed.tokens.to(dtype), packed.offsets)


def joined(where: str, x: SparseTensor, more: SparseTensor | None) -> SparseTensor:
    """x with further channels behind its own, such as those of a concatenated condition; None adds none.

    Raises:
        ShapeError: other cells.   DeviceError: another device.
    """
    if more is None:
        return x
    if more.grid is not x.grid and not torch.equal(more.coords, x.coords):
        raise ShapeError(f"{where}: concat_cond must lie on the cells of x; got {more.grid!r} and {x.grid!r}.")
    require_same_device(where, x=x.feats, concat_cond=more.feats)
    return x.with_feats(torch.cat((x.feats, more.feats.to(x.dtype)), 1))
