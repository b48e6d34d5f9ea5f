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
    """Convert the weights of all linear maps and convolutions inside a module, in place, and leave its norms float32.

    How the released models run: features of the torso in half precision, statistics of norms in float32. Features that
    go in must be of this dtype too (`x.to(dtype)`). To train in half precision, prefer `torch.autocast`.

    Args:
        module: any; parts that are `nn.Linear`, `nn.Conv3d`, `nn.ConvTranspose3d` or `SparseConv3d` are converted, itself included.
        dtype: a float dtype.
    Returns:
        The module.
    Raises:
        DtypeError: not a float dtype.
    Source: TRELLIS.2, `use_fp16`; differences: none.
    Example:
        >>> block = set_torso_dtype(SparseConvNeXtBlock(64), torch.float16)
        >>> block(x.to(torch.float16)).dtype                              # x: SparseTensor of 64 channels
        torch.float16
    """
    if dtype not in FLOATS:
        raise DtypeError(f"set_torso_dtype: dtype must be a float dtype; got {dtype}.")
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv3d, nn.ConvTranspose3d, SparseConv3d)):
            part.to(dtype)
    return module
