"""List of pairs (Gaussian, pixel): vectorised torch for any device, gradients by autograd.

Each Gaussian that touches the crop is opened into its rows, each row into the pixels between the two ends of the ellipse on which alpha
falls to 1/255. The pairs, near to far, are sorted by pixel; products of (1 - alpha) along a pixel are differences of one cumulative
sum of logarithms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core.batching import batch_index, offsets_from_counts
from voxgen.ops.segment import segment_broadcast, segment_reduce

from ._preset import SMALLEST_ALPHA, STOP
from ._projection import Spots, project
from ._reference import drawing_order
from ._view import View

PAIRS = 1 << 22
"""Pairs that are opened at a time, about 150 bytes each without a gradient."""
PAD = 1e-3
"""Pixels by which ends of ellipses are moved outwards; what is too much is dropped by its alpha."""


class _Pairs(NamedTuple):
    """owner: (p,) spot of each pair, ascending.   row, column: (p,) pixel inside the crop.   offsets: bounds of the spots' pairs."""

    owner: Tensor
    row: Tensor
    column: Tensor
    offsets: Tensor


def splat(means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """See `_reference.splat`. Memory: about 250 bytes a pair where a gradient is wanted."""
    spots = project(means, rotations, scales, opacities, view)
    order = drawing_order(spots.depth, spots.visible & _touching(spots, view))
    if len(order) == 0:
        nothing = features.sum() * 0 + spots.opacity.sum() * 0  # so that a view of nothing has gradients of zero, not none
        height, width = view.crop[3], view.crop[2]
        return nothing.expand(height, width, features.shape[1]), nothing.expand(height, width)
    spots = Spots(*(field.index_select(0, order) for field in spots))
    features = features.index_select(0, order)
    bands = [_band(spots, features, view, first, last) for first, last in _bands(spots, view)]
    image, alpha = (torch.cat(parts) for parts in zip(*bands, strict=True))
    return image, alpha


def _box(spots: Spots, view: View) -> tuple[Tensor, Tensor]:
    """(n, 2) first and last column and row that a spot may touch, in the crop, as floats; last < first where it misses the crop."""
    corner = spots.position.new_tensor(view.crop[:2])
    size = spots.position.new_tensor(view.crop[2:])
    centre = spots.position.detach() - corner - 0.5
    first = (centre - spots.extent - PAD).ceil().clamp_min(0)
    return first, torch.minimum((centre + spots.extent + PAD).floor(), size - 1)


def _touching(spots: Spots, view: View) -> Tensor:
    first, last = _box(spots, view)
    return (first <= last).all(1)


def _bands(spots: Spots, view: View) -> list[tuple[int, int]]:
    """Runs of rows whose boxes hold at most PAIRS pixels together, at least one row each."""
    first, last = _box(spots, view)
    width = last[:, 0] - first[:, 0] + 1
    change = torch.zeros(view.crop[3] + 1, dtype=torch.float64, device=width.device)
    change.index_add_(0, first[:, 1].long(), width).index_add_(0, last[:, 1].long() + 1, -width)
    found, start, total = [], 0, 0.0
    for row, pairs in enumerate(change.cumsum(0)[:-1].tolist()):
        if total + pairs > PAIRS and row > start:
            found.append((start, row))
            start, total = row, 0.0
        total += pairs
    return [*found, (start, view.crop[3])]


def _open(spots: Spots, view: View, top: int, bottom: int) -> _Pairs:
    """The pairs in rows top to bottom - 1 of the crop."""
    first, last = _box(spots, view)
    low, high = first[:, 1].clamp_min(top), last[:, 1].clamp_max(bottom - 1)
    counts = (high - low + 1).clamp_min(0).long()
    line_offsets = offsets_from_counts(counts)
    owner = batch_index(line_offsets)
    row = low.long()[owner] + torch.arange(len(owner), device=owner.device) - line_offsets[owner]
    xx, xy, yy = spots.conic.detach()[owner].unbind(1)
    dy = spots.position.detach()[owner, 1] - (view.crop[1] + row + 0.5)
    reach = 2 * (255 * spots.opacity.detach()[owner]).log()
    root = (xy * xy * dy * dy - xx * (yy * dy * dy - reach)).clamp_min(0).sqrt()
    centre = spots.position.detach()[owner, 0] - view.crop[0] - 0.5
    # d = mean - pixel, so the pixel's ends are at centre - (-xy dy ± root) / xx
    left = ((centre + (xy * dy - root) / xx) - PAD).ceil()
    right = ((centre + (xy * dy + root) / xx) + PAD).floor()
    left = torch.maximum(left.nan_to_num(-math.inf), first[owner, 0])  # NaN: so large that the ellipse has no ends
    right = torch.minimum(right.nan_to_num(math.inf), last[owner, 0])
    widths = (right - left + 1).clamp_min(0).long()
    pair_offsets = offsets_from_counts(widths)
    line = batch_index(pair_offsets)
    column = left.long()[line] + torch.arange(len(line), device=line.device) - pair_offsets[line]
    return _Pairs(owner[line], row[line], column, pair_offsets[line_offsets])


def _band(spots: Spots, features: Tensor, view: View, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    width = view.crop[2]
    pairs = _open(spots, view, top, bottom)
    with torch.no_grad():  # most memory goes to pairs that are drawn; the others are known before a gradient is prepared
        drawn = _alpha(spots, pairs, view) >= SMALLEST_ALPHA
    kept = torch.cat((drawn.new_zeros(1, dtype=torch.int64), drawn.long().cumsum(0)))
    pairs = _Pairs(pairs.owner[drawn], pairs.row[drawn], pairs.column[drawn], kept[pairs.offsets])
    pixel = (pairs.row - top) * width + pairs.column
    pixel, by_pixel = pixel.sort(stable=True)
    bounds = torch.searchsorted(pixel, torch.arange((bottom - top) * width + 1, device=pixel.device))
    alpha = _alpha(spots, pairs, view).index_select(0, by_pixel)
    logs = torch.log1p(-alpha)
    ends = torch.cat((logs.new_zeros(1), logs.cumsum(0)))
    start = ends.index_select(0, bounds[:-1])
    through = ends[1:] - segment_broadcast(start[:, None], bounds, rows=len(logs), backend="torch")[:, 0]  # behind this pair
    limit = math.log(STOP)
    open_ = (through >= limit) if view.preset.strict_stop else (through > limit)
    weight = torch.where(open_, alpha * torch.exp(through - logs), 0)
    rows = segment_broadcast(features, pairs.offsets, rows=len(pairs.owner), backend="torch").index_select(0, by_pixel)
    image = segment_reduce(weight[:, None] * rows, bounds, backend="torch")
    passed = segment_reduce(torch.where(open_, logs, 0)[:, None], bounds, backend="torch")[:, 0]
    shape = bottom - top, width
    return image.reshape(*shape, -1), -torch.expm1(passed).reshape(shape)


def _alpha(spots: Spots, pairs: _Pairs, view: View) -> Tensor:
    values = torch.cat((spots.position, spots.conic, spots.opacity[:, None]), 1)
    u, v, xx, xy, yy, opacity = segment_broadcast(values, pairs.offsets, rows=len(pairs.owner), backend="torch").unbind(1)
    dx, dy = u - (view.crop[0] + pairs.column + 0.5), v - (view.crop[1] + pairs.row + 0.5)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (opacity * torch.exp(-sigma)).clamp(max=view.preset.alpha_max)
    return torch.where(sigma >= 0, alpha, 0)
