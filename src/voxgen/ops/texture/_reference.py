"""The definition: gather the texels around each sample and mix them."""

from __future__ import annotations

import torch
from torch import Tensor

from ._pyramid import ZERO, TexturePyramid


def sample(pyramid: TexturePyramid, uv: Tensor, level: Tensor, wrap: Tensor, nearest: bool, v_up: bool = True) -> Tensor:
    """See `voxgen.ops.texture.sample_texture`; wrap is (n, 2) with the code of the rule for each sample, nearest for all.

    With v_up, row 0 is at v = 1, else at v = 0.
    """
    last = len(pyramid.levels) - 1
    position = level.to(uv.dtype).nan_to_num(0.0).clamp(0, last)
    result = torch.zeros((len(uv), pyramid.channels), dtype=uv.dtype, device=uv.device)
    for k in range(last + 1):
        share = 1 - (position - k).abs()
        rows = (share > 0).nonzero()[:, 0]
        if len(rows):
            values = _at_level(pyramid, k, uv.index_select(0, rows), wrap[rows].long(), nearest and k == 0, v_up)
            result = result.index_add(0, rows, share[rows, None] * values)
    return result


def _at_level(pyramid: TexturePyramid, level: int, uv: Tensor, wrap: Tensor, nearest: bool, v_up: bool) -> Tensor:
    height, width = pyramid.levels[level].shape[:2]
    x, y = uv[:, 0] * width, (1 - uv[:, 1] if v_up else uv[:, 1]) * height
    if nearest:
        values = _texels(pyramid, level, y.floor(), x.floor(), wrap).to(uv.dtype)
    else:
        left, top = (x - 0.5).floor(), (y - 0.5).floor()
        values = torch.zeros((len(uv), pyramid.channels), dtype=uv.dtype, device=uv.device)
        for row, row_share in ((top, 1.5 + top - y), (top + 1, y - 0.5 - top)):
            for column, column_share in ((left, 1.5 + left - x), (left + 1, x - 0.5 - left)):
                values = values + (row_share * column_share)[:, None] * _texels(pyramid, level, row, column, wrap).to(uv.dtype)
    if pyramid.cutoff is not None and level == 0:
        values = (values >= pyramid.cutoff).to(uv.dtype)
    return values


def _texels(pyramid: TexturePyramid, level: int, row: Tensor, column: Tensor, wrap: Tensor) -> Tensor:
    """(n, c) texels at whole rows and columns, which may lie outside."""
    height, width = pyramid.levels[level].shape[:2]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    texels = pyramid.texels(level, _wrapped(row, height, wrap[:, 1]), _wrapped(column, width, wrap[:, 0]))
    black = (wrap == ZERO).any(1) & ~inside
    return texels.masked_fill(black[:, None], 0)


def _wrapped(index: Tensor, size: int, code: Tensor) -> Tensor:
    """Index of a texel along one axis after wrapping: 0 repeat, 1 clamp (and any for `ZERO`), 2 mirror."""
    i = index.detach().long()
    mirrored = i % (2 * size)
    mirrored = torch.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    return torch.where(code == 0, i % size, torch.where(code == 2, mirrored, i.clamp(0, size - 1)))
