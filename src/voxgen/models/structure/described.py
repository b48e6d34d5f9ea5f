"""What encoder and decoder of dense cubes share: a description in plain values, and a network from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from voxgen.models._trunk import TORSO_DTYPES

from .checks import torso_dtype_of

C = TypeVar("C", bound="CubeNetwork")


class CubeNetwork(nn.Module):
    """Base of the dense encoder and decoder. A subclass sets `_fields`, its arguments but for torso_dtype, and the parts."""

    _fields: dict[str, Any]
    input_layer: nn.Conv3d
    blocks: nn.ModuleList
    middle_block: nn.Sequential
    out_layer: nn.Sequential

    @property
    def torso_dtype(self) -> torch.dtype:
        """Dtype of the convolutions between the first and the last."""
        return torso_dtype_of(self.blocks, self.middle_block, default=self.ends_dtype)

    @property
    def ends_dtype(self) -> torch.dtype:
        """Dtype of the first and the last convolution: float32, but for Direct3D-S2's decoder in half precision."""
        return self.input_layer.weight.dtype

    def description(self) -> dict[str, Any]:
        """The configuration in plain values; `save_pretrained` writes it."""
        dtypes = {"torso_dtype": self.torso_dtype, "ends_dtype": self.ends_dtype}
        return {**self._fields, **{name: str(dtype).removeprefix("torch.") for name, dtype in dtypes.items()}}

    @classmethod
    def from_description(cls: type[C], values: Mapping[str, Any]) -> C:
        """The inverse of `description`, with fresh weights."""
        fields = dict(values)
        torso, ends = (TORSO_DTYPES[fields.pop(name)] for name in ("torso_dtype", "ends_dtype"))
        network = cls(**fields, torso_dtype=torso)
        network.input_layer.to(ends)
        network.out_layer[2].to(ends)
        return network
