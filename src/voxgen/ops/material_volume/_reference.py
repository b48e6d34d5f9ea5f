"""The definition: each triangle is cut by each cell, one pair at a time."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from voxgen.ops.voxelize._prepare import Scene
from voxgen.ops.voxelize._reference import triangle_cells

from . import _trellis2
from ._evaluate import evaluate, finish
from ._record import MaterialVolume
from ._samples import Pieces, piece_weights, rescue_margin
from ._shading import Shading

Point = tuple[float, float]


def material_volume(scene: Scene, shading: Shading, compat: str | None, progress: bool) -> MaterialVolume:
    """See `voxgen.ops.material_volume.material_volume`."""
    cells, triangle, row = triangle_cells(scene)
    if compat:
        values, weights = _trellis2.evaluate(scene, shading, cells, triangle.long(), row.long())
        return MaterialVolume(cells, _trellis2.finish(shading, *totals(values, weights, row.long(), len(cells))))
    sums, weights = _cut_and_add(scene, shading, cells, 0.0)
    missed = weights == 0
    if bool(missed.any()):
        sums[missed], weights[missed] = _cut_and_add(scene, shading, cells[missed], rescue_margin(scene))
    return MaterialVolume(cells, finish(shading, sums, weights))


def _cut_and_add(scene: Scene, shading: Shading, cells: Tensor, grow: float) -> tuple[Tensor, Tensor]:
    pieces = all_pieces(scene, cells, grow)
    return totals(evaluate(scene, shading, pieces), piece_weights(scene, pieces), pieces.row, len(cells))


def totals(values: Tensor, weights: Tensor, row: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count, c) weighted sums, and (count,) sums of the weights."""
    sums = values.new_zeros((count, values.shape[1])).index_add(0, row, values * weights[:, None])
    return sums, values.new_zeros(count).index_add(0, row, weights)


def all_pieces(scene: Scene, cells: Tensor, grow: float) -> Pieces:
    """Cut every triangle by every cell, grown by `grow`, that its bounding box reaches."""
    pairs: list[tuple[int, int]] = []
    corners: list[tuple[Point, Point, Point]] = []
    for triangle, corner in enumerate(scene.cell_corners()):
        reached = ((cells - grow <= corner.amax(0)) & (cells + 1 + grow >= corner.amin(0))).all(1)
        edges = (corner[1:] - corner[0]).tolist()
        for row in reached.nonzero()[:, 0].tolist():
            offset = (corner[0] - cells[row]).tolist()
            polygon = part_in_cell(offset, edges, grow)
            for second, third in itertools.pairwise(polygon[1:]):
                pairs.append((triangle, row))
                corners.append((polygon[0], second, third))
    table = torch.tensor(pairs, device=cells.device).reshape(-1, 2).long()
    return Pieces(table[:, 0], table[:, 1], torch.tensor(corners, dtype=torch.float64, device=cells.device).reshape(-1, 3, 2))


def part_in_cell(offset: list[float], edges: list[list[float]], grow: float) -> list[Point]:
    """The polygon, in (b1, b2), where offset + b1 edges[0] + b2 edges[1] lies in [-grow, 1 + grow]³ (Sutherland-Hodgman)."""
    polygon: list[Point] = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
    for axis in range(3):
        for inward, wall in ((1.0, -grow), (-1.0, 1 + grow)):
            inside = [inward * ((offset[axis] - wall) + (b1 * edges[0][axis] + b2 * edges[1][axis])) for b1, b2 in polygon]
            cut: list[Point] = []
            for k, (point, d) in enumerate(zip(polygon, inside, strict=True)):
                before, d_before = polygon[k - 1], inside[k - 1]
                if (d_before >= 0) != (d >= 0):
                    t = d_before / (d_before - d)
                    cut.append((before[0] + t * (point[0] - before[0]), before[1] + t * (point[1] - before[1])))
                if d >= 0:
                    cut.append(point)
            polygon = cut
    return polygon
