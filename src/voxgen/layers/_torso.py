"""Half-precision torso."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from voxgen.core.checks import FLOATS
from voxgen.core.errors import DtypeError

from ._conv import SparseConv3d

M = TypeVar("M", bound=nn.Module)


def set_torso_dtype(module: M, dtype: torch.dtype) -> M:
    if dtype not in FLOATS:
        raise DtypeError(f"set_torso_dtype: dtype must be a float dtype; got {dtype}.")
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv3d, nn.ConvTranspose3d, SparseConv3d)):
            part.to(dtype)
    return module
