"""Vectorised engine for any device that has float64: pieces of the surface in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from voxgen.core.coords import unpack_keys
from voxgen.ops.voxelize._prepare import Scene
from voxgen.ops.voxelize._reference import cell_keys
from voxgen.ops.voxelize._torch import active_cells, expand, triangle_cells

from . import _trellis2
from ._evaluate import evaluate, finish
from ._record import MaterialVolume, columns
from ._samples import Pieces, piece_weights, rescue_margin
from ._shading import Shading

CHUNK = 1 << 17
"""Pairs of a triangle and a cell that are cut, or evaluated, at a time; about 4 kB each."""


def material_volume(scene: Scene, shading: Shading, compat: str | None, progress: bool) -> MaterialVolume:
    """See `voxgen.ops.material_volume.material_volume`."""
    if compat:
        return _compat(scene, shading, progress)
    keys = active_cells(scene)
    sums, weights = _cut_and_add(scene, shading, keys, 0.0, progress)
    missed = (weights == 0).nonzero()[:, 0]
    if len(missed):
        sums[missed], weights[missed] = _cut_and_add(scene, shading, keys[missed], rescue_margin(scene), False)
    return MaterialVolume(unpack_keys(keys)[:, 1:].contiguous(), finish(shading, sums, weights))


def _compat(scene: Scene, shading: Shading, progress: bool) -> MaterialVolume:
    cells, triangle, row = triangle_cells(scene)
    total = _Total(shading, len(cells), row.device)
    bar = _Bar(len(row), progress)
    for begin in range(0, len(row), CHUNK):
        rows = row[begin : begin + CHUNK].long()
        values, weights = _trellis2.evaluate(scene, shading, cells, triangle[begin : begin + CHUNK].long(), rows)
        total.add(values, weights, rows)
        bar.update(len(rows))
    bar.close()
    return MaterialVolume(cells, _trellis2.finish(shading, total.sums, total.weights))


def _cut_and_add(scene: Scene, shading: Shading, keys: Tensor, grow: float, progress: bool) -> tuple[Tensor, Tensor]:
    total = _Total(shading, len(keys), keys.device)
    bar = _Bar(len(scene.faces), progress)
    for pairs, done in overlap_candidates(scene, keys, grow):
        for triangle, row in zip(*(t.split(CHUNK) for t in pairs), strict=True):
            pieces = cut(scene, unpack_keys(keys[row])[:, 1:], triangle, row, grow)
            total.add(evaluate(scene, shading, pieces), piece_weights(scene, pieces), pieces.row)
        bar.update(done)
    bar.close()
    return total.sums, total.weights


class _Total:
    """Weighted sums by cell, the same from run to run on any device: no two threads add to one number."""

    def __init__(self, shading: Shading, count: int, device: torch.device) -> None:
        width = max((place.stop for place in columns(shading.channels).values()), default=0)
        self.sums = torch.zeros((count, width), dtype=torch.float64, device=device)
        self.weights = torch.zeros(count, dtype=torch.float64, device=device)

    def add(self, values: Tensor, weights: Tensor, row: Tensor) -> None:
        if len(row) == 0:
            return
        row, order = row.sort(stable=True)
        unique, counts = row.unique_consecutive(return_counts=True)
        both = torch.cat((values * weights[:, None], weights[:, None]), 1)[order]
        added = torch.segment_reduce(both, "sum", lengths=counts)
        self.sums[unique] += added[:, :-1]
        self.weights[unique] += added[:, -1]


class _Bar:
    def __init__(self, total: int, shown: bool) -> None:
        from tqdm import tqdm

        self.tqdm = tqdm(total=total, desc="materials", disable=not shown)

    def update(self, count: int) -> None:
        self.tqdm.update(count)

    def close(self) -> None:
        self.tqdm.close()


def overlap_candidates(scene: Scene, keys: Tensor, grow: float) -> Iterator[tuple[tuple[Tensor, Tensor], int]]:
    """Pairs (triangle, row of a touched cell) that may overlap, in the order of triangles, and how many triangles are done.

    Each triangle is seen along the axis that its normal is nearest to; for each column of cells under its bounding
    rectangle, the cells that its plane passes are listed.
    """
    if len(keys) == 0:
        return
    corners = scene.cell_corners()
    limit = torch.tensor(scene.resolution, device=keys.device)
    slack = grow + 1e-6
    low = (corners.amin(1) - slack).floor().long().clamp(min=0)
    high = torch.minimum((corners.amax(1) + slack).floor().long(), limit - 1)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    depth = normal.abs().argmax(1, keepdim=True)
    axes = torch.cat(((depth + 1) % 3, (depth + 2) % 3, depth), 1)
    low, high, normal, base = (t.gather(1, axes) for t in (low, high, normal, corners[:, 0]))
    spans = (high - low + 1).clamp(min=0)
    counts = spans[:, 0] * spans[:, 1] * (spans[:, 2] > 0)
    finished = 0
    for triangle, step in expand(counts):
        column = torch.stack((step // spans[triangle, 1], step % spans[triangle, 1]), 1) + low[triangle, :2]
        n, origin = normal[triangle], base[triangle]
        slope = n[:, :2] / n[:, 2:]
        middle = origin[:, 2] - (slope * (column + 0.5 - origin[:, :2])).sum(1)
        reach = slope.abs().sum(1) * (0.5 + slack) + slack
        flat = n[:, 2] == 0  # no area: the whole column
        first = torch.where(flat, low[triangle, 2], torch.maximum((middle - reach).floor().long(), low[triangle, 2]))
        last = torch.where(flat, high[triangle, 2], torch.minimum((middle + reach).floor().long(), high[triangle, 2]))
        finished, before = int(triangle[-1]), finished
        for pair, depth_step in expand((last - first + 1).clamp(min=0)):
            seen = torch.cat((column[pair], (first[pair] + depth_step)[:, None]), 1)
            cell = torch.empty_like(seen).scatter_(1, axes[triangle[pair]], seen)
            key = cell_keys(cell)
            row = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
            known = keys[row] == key
            yield (triangle[pair][known], row[known]), 0
        yield (triangle[:0], triangle[:0]), finished - before


def cut(scene: Scene, cells: Tensor, triangle: Tensor, row: Tensor, grow: float) -> Pieces:
    """The pieces of each pair; the arithmetic is that of `_reference.part_in_cell`."""
    corners = scene.vertices[scene.faces[triangle].long()].double() / scene.sizes()
    offset = corners[:, 0] - cells
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    polygon = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64, device=row.device).repeat(len(row), 1, 1)
    count = torch.full((len(row),), 3, device=row.device)
    for axis in range(3):
        for inward, wall in ((1.0, -grow), (-1.0, 1 + grow)):
            along = polygon[:, :, 0] * first[:, axis, None] + polygon[:, :, 1] * second[:, axis, None]
            polygon, count = _cut_by_line(polygon, count, inward * ((offset[:, axis, None] - wall) + along))
    pair, fan = (torch.arange(polygon.shape[1] - 2, device=row.device) + 2 < count[:, None]).nonzero(as_tuple=True)
    corners = torch.stack((polygon[pair, 0], polygon[pair, fan + 1], polygon[pair, fan + 2]), 1)
    return Pieces(triangle[pair], row[pair], corners)


def _cut_by_line(polygon: Tensor, count: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the part of convex polygons (p, k, 2) of `count` corners each where `inside` (p, k), linear, is not negative."""
    size = polygon.shape[1]
    place = torch.arange(size, device=count.device)
    previous = torch.where(place == 0, (count[:, None] - 1).clamp(min=0), place - 1)
    before, d_before = polygon.gather(1, previous[:, :, None].expand(-1, -1, 2)), inside.gather(1, previous)
    exists = place < count[:, None]
    kept = exists & (inside >= 0)
    crossed = exists & ((d_before >= 0) != (inside >= 0))
    t = d_before / (d_before - inside)
    crossing = before + t[:, :, None] * (polygon - before)
    emitted = torch.stack((crossed, kept), 2).flatten(1)
    points = torch.stack((crossing, polygon), 2).flatten(1, 2)
    # A convex polygon gains at most one corner; the last slot takes what is not emitted.
    target = torch.where(emitted, emitted.cumsum(1) - 1, size + 1)
    result = points.new_zeros((len(points), size + 2, 2)).scatter(1, target[:, :, None].expand(-1, -1, 2), points)
    return result[:, : size + 1], emitted.sum(1)
