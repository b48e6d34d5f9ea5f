"""Checks that the dense networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError, ShapeError


def require_counts(where: str, channels: Sequence[int], ends: int, latent_channels: int, blocks: int, middle: int) -> list[int]:
    """The widths of the levels; raise unless these numbers make a network."""
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise DtypeError(f"{where}: channels must be a list of whole numbers, one a level; got {describe(channels)}.")
    if not channels:
        raise RangeError(f"{where}: channels must have at least one level; got none.")
    for name, value in (("in or out channels", ends), ("latent_channels", latent_channels)):
        require_int(where, name, value, 1)
    for name, value in (("num_res_blocks", blocks), ("num_res_blocks_middle", middle)):
        require_int(where, name, value, 0)
    return [require_int(where, f"channels[{i}]", width, 1) for i, width in enumerate(channels)]


def require_sides(where: str, x: Tensor, factor: int) -> None:
    """Raise unless the last three sides of x are multiples of `factor`."""
    if any(side == 0 or side % factor for side in x.shape[-3:]):
        raise ShapeError(f"{where}: sides must be multiples of {factor}, one halving between each two levels; got {tuple(x.shape[-3:])}.")


def torso_dtype_of(*parts: nn.Module, default: torch.dtype) -> torch.dtype:
    """Dtype of the first convolution in these modules: it follows `.to(dtype)`, as a remembered dtype would not."""
    return next((m.weight.dtype for part in parts for m in part.modules() if isinstance(m, nn.Conv3d)), default)
