"""From the pairs that an outline passes between to the image: plain torch, differentiable in colours and positions."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.rasterize import Window, take_rows, to_screen


def blend(color: Tensor, positions: Tensor, pairs: Tensor, window: Window) -> Tensor:
    """Colours (b, rows, columns, c), positions (b or 1, v, 4), pairs as `Query` says → the antialiased image.

    An outline that crosses the line between two centres at distance d from the owner's (0 to 1) leaves the owner d - 1/2 too much or
    too little of the other pixel's place; this share of the difference of colours moves from one to the other.
    """
    pixel, axis, second, tail, head = pairs.unbind(1)
    other = pixel + torch.where(axis == 0, 1, window.columns)
    owner = torch.where(second == 0, pixel, other)
    vertex = torch.stack((tail, head), 1)
    if len(positions) > 1:
        vertex = vertex + (pixel // window.pixels * positions.shape[1])[:, None]
    x, y, _, w = to_screen(take_rows(positions.reshape(-1, 4), vertex), window.height, window.width)
    x = x - (owner % window.columns + window.left + 0.5)[:, None] * w
    y = y - (owner // window.columns % window.rows + window.top + 0.5)[:, None] * w
    level = (axis == 0)[:, None]
    (ua, ub), (va, vb), (wa, wb) = torch.where(level, x, y).unbind(1), torch.where(level, y, x).unbind(1), w.unbind(1)
    forward = (1 - 2 * second).double()
    distance = forward * ((ua * vb - va * ub) / (wa * vb - wb * va))
    distance = distance + (distance.detach().clamp(0, 1) - distance.detach())  # the gradient passes straight through
    share = forward * (0.5 - distance)
    flat = color.flatten(0, 2)
    change = share[:, None].to(color.dtype) * (flat.index_select(0, other) - flat.index_select(0, pixel))
    target = torch.where(share.detach() > 0, pixel, other)
    return flat.index_add(0, target, change).view(color.shape)
