"""The definition: every cell in the reach of every triangle is tested, and the triangle is clipped to each that it touches."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.dual_grid._reference import touches
from voxgen.ops.voxelize._prepare import Scene
from voxgen.ops.voxelize._reference import cell_keys

TOLERANCE = 1e-9
"""In cells: by how much cells are grown before the test, so that a surface in a boundary touches both sides."""


def surface_sums(scene: Scene, moments: bool) -> tuple[Tensor, Tensor]:
    """Cells (n, 3) int32 in order, and for each the sums (n, 13) float64 over the surface inside it: area, area · position (3),
    area · position² (3), area · n nᵀ (xx, yy, zz, xy, yz, zx), positions from the cell's lowest corner; (n, 0) without `moments`."""
    triangle, cell = _pairs(scene)
    keys, row = cell_keys(cell).unique(return_inverse=True)
    cells = cell.new_zeros(len(keys), 3).index_copy(0, row, cell)
    if not moments:
        return cells.int(), scene.vertices.new_zeros(len(keys), 0)
    corners = scene.vertices[scene.faces.long()]
    pieces, owner = corners[triangle] - cell[:, None].double(), torch.arange(len(cell), device=cell.device)
    for axis in range(3):
        pieces, owner = _clip(pieces, owner, axis, 0.0, 1.0)
        pieces, owner = _clip(pieces, owner, axis, 1.0, -1.0)
    normals = torch.nn.functional.normalize(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=1, eps=0)
    sums = scene.vertices.new_zeros(len(keys), 13)
    return cells.int(), sums.index_add(0, row[owner], _moments(pieces, normals[triangle[owner]]))


def _pairs(scene: Scene) -> tuple[Tensor, Tensor]:
    """All pairs of a triangle with an area and a cell that it touches: triangle (m,), cell (m, 3), int64."""
    p = scene.vertices[scene.faces.long()]
    limits = torch.tensor(scene.resolution, device=p.device)
    first = (p.amin(1) - TOLERANCE).floor().long().clamp_min(0)
    end = torch.minimum((p.amax(1) + TOLERANCE).floor().long() + 1, limits)
    shape = (end - first).clamp_min(0)
    counts = shape.prod(1)
    t = torch.arange(len(p), device=p.device).repeat_interleave(counts)
    offset = torch.arange(len(t), device=p.device) - (counts.cumsum(0) - counts)[t]
    _, height, depth = shape[t].unbind(1)
    cell = first[t] + torch.stack((offset // (height * depth), offset // depth % height, offset % depth), 1)
    hit = touches(p[t], scene.sizes(), TOLERANCE, cell)
    return t[hit], cell[hit]


def _clip(p: Tensor, owner: Tensor, axis: int, at: float, sign: float) -> tuple[Tensor, Tensor]:
    """The parts of triangles p (n, 3, 3) where sign · (x_axis − at) ≥ 0, as triangles, and whose they are."""
    d = sign * (p[:, :, axis] - at)
    inside = d >= 0
    count = inside.sum(1)
    odd = torch.where((count == 1)[:, None], inside, ~inside).int().argmax(1)  # the corner that is alone on its side
    turn = (odd[:, None] + torch.arange(3, device=p.device)) % 3
    p, d = p.gather(1, turn[:, :, None].expand(-1, -1, 3)), d.gather(1, turn)
    a, b, c = p.unbind(1)
    ab = a + (d[:, :1] / (d[:, :1] - d[:, 1:2])) * (b - a)
    ac = a + (d[:, :1] / (d[:, :1] - d[:, 2:])) * (c - a)
    one, two, three = count == 1, count == 2, count == 3
    parts = [
        (p, three),
        (torch.stack((a, ab, ac), 1), one),
        (torch.stack((b, c, ac), 1), two),
        (torch.stack((b, ac, ab), 1), two),
    ]
    return torch.cat([t[keep] for t, keep in parts]), torch.cat([owner[keep] for _, keep in parts])


def _moments(p: Tensor, n: Tensor) -> Tensor:
    """The thirteen integrals over triangles p (m, 3, 3) with unit normals n (m, 3)."""
    area = torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]).norm(dim=1, keepdim=True) / 2
    total = p.sum(1)
    x, y, z = n.unbind(1)
    outer = torch.stack((x * x, y * y, z * z, x * y, y * z, z * x), 1)
    return torch.cat((area, area * total / 3, area * (total.square() + p.square().sum(1)) / 12, area * outer), 1)
