"""The definition: all terms of the error of each cell, summed in float64, then minimised in the cell."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core.coords import unpack_keys
from voxgen.ops.qef._reference import PULL, minimise_in_box, pulled
from voxgen.ops.voxelize._prepare import Scene
from voxgen.ops.voxelize._reference import cell_keys, edge_crossings, neighbourhood, plane

from ._prepare import FOLD, Problem, touch_margin


class Terms(NamedTuple):
    """What is summed for each active cell.

    cells: (n, 3) int32.   quadrics: (n, 10) float64, the squared distances as a function of the position in the cell: upper
    triangle of a 4×4 matrix, row by row.   points: (n, 3) float64, sum of the crossing points.   crossings: (n,) float64.
    crossed: (n, 3) bool, flags of the owned edges.   balance: (n, 3) int64, normals along the edge minus those against it.
    """

    cells: Tensor
    quadrics: Tensor
    points: Tensor
    crossings: Tensor
    crossed: Tensor
    balance: Tensor


def dual_grid(problem: Problem, progress: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `voxgen.ops.dual_grid.dual_grid`."""
    del progress
    terms = sum_terms(problem)
    q, anchor = objective(problem, terms)
    a, b = pulled(q, anchor, PULL[torch.float64])
    dual = minimise_in_box(a, b, torch.zeros_like(anchor), torch.ones_like(anchor))
    return terms.cells, dual.float(), terms.crossed, terms.balance > 0


def objective(problem: Problem, terms: Terms) -> tuple[Tensor, Tensor]:
    """(n, 10) whole error of each cell up to a constant, regulariser included, and (n, 3) the mean crossing point."""
    weight = problem.regularization * problem.scale() ** 2
    q = terms.quadrics.clone()
    q[:, [0, 4, 7]] += weight * terms.crossings[:, None]
    q[:, [3, 6, 8]] -= weight * terms.points
    return q, terms.points / terms.crossings[:, None]


def sum_terms(problem: Problem) -> Terms:
    """The terms of all three kinds."""
    scene = problem.scene
    found = [edge_crossings(scene, axis) for axis in range(3)]
    keys = torch.cat([cell_keys(c) for axis in range(3) for c in neighbourhood(found[axis].cells, axis)]).unique()
    cells = unpack_keys(keys)[:, 1:].contiguous()
    planes = triangle_planes(problem)

    sums = torch.zeros((len(cells), 10), dtype=torch.float64, device=keys.device)
    means = torch.zeros((len(cells), 3), dtype=torch.float64, device=keys.device)
    counts = torch.zeros(len(cells), dtype=torch.float64, device=keys.device)
    crossed = torch.zeros((len(cells), 3), dtype=torch.bool, device=keys.device)
    balance = torch.zeros((len(cells), 3), dtype=torch.int64, device=keys.device)
    times = torch.zeros_like(balance)
    normals = torch.zeros((len(cells), 3, 3), dtype=torch.float64, device=keys.device)
    for axis in range(3):
        t, owner, point = found[axis]
        for touched in neighbourhood(owner, axis):
            row = torch.searchsorted(keys, cell_keys(touched))
            sums.index_add_(0, row, plane_quadrics(planes[t], touched))
            means.index_add_(0, row, point / scene.sizes() - touched)
            counts.index_add_(0, row, torch.ones_like(point[:, 0]))
        row = torch.searchsorted(keys, cell_keys(owner))
        crossed[row, axis] = True
        balance[:, axis].index_add_(0, row, planes[t, axis].sign().long())
        times[:, axis].index_add_(0, row, torch.ones_like(t))
        normals[:, axis].index_add_(0, row, planes[t, :3] / problem.scale())
    crossed &= ~folded(scene, times, balance, normals)
    if problem.face_weight > 0:
        t, touched = overlaps(problem)
        active = torch.isin(cell_keys(touched), keys)
        t, touched = t[active], touched[active]
        row = torch.searchsorted(keys, cell_keys(touched))
        sums.index_add_(0, row, problem.face_weight * plane_quadrics(planes[t], touched))
    lookup = {key: row for row, key in enumerate(keys.tolist())} if len(problem.edges) else {}
    for edge in problem.edges:
        visited = torch.tensor(walk(problem, edge), dtype=torch.int64, device=keys.device).reshape(-1, 3)
        rows = [lookup.get(key, -1) for key in cell_keys(visited).tolist()]
        for cell, row in zip(visited, rows, strict=True):
            if row >= 0:
                sums[row] += problem.boundary_weight * line_quadric(problem, edge, cell)

    return Terms(cells, sums, means, counts, crossed, balance)


def folded(scene: Scene, times: Tensor, balance: Tensor, normals: Tensor) -> Tensor:
    """(n, 3) bool: edges that a single sheet crosses back and forth, so that no quad belongs there (never with compat).

    A sheet that grazes an edge, or bends around it, would otherwise leave a flap with free borders in a closed surface.

    Args:
        times: (n, 3) crossings of each edge.   balance: (n, 3) those along the axis minus those against it.
        normals: (n, 3, 3) sum of the unit normals of each edge's crossings.
    """
    back_and_forth = (times == 2) & (balance == 0) & (normals.square().sum(2) > FOLD)
    return back_and_forth & scene.closed


def triangle_planes(problem: Problem) -> Tensor:
    """(f, 4) float64 plane (m, d) of each triangle: m · u + d is the distance of the point u (in cells from the grid's corner),
    in units of the longest side of a voxel. Zero for triangles without area."""
    p = problem.scene.cell_corners()
    (ax, ay, az), (bx, by, bz) = (p[:, 1] - p[:, 0]).unbind(1), (p[:, 2] - p[:, 0]).unbind(1)
    normal = torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), 1)
    length = (normal / problem.scale()).norm(dim=1, keepdim=True)
    m = torch.where(length > 0, normal / length, torch.zeros_like(normal))
    return torch.cat((m, -(m * p[:, 0]).sum(1, keepdim=True)), 1)


def plane_quadrics(planes: Tensor, cells: Tensor) -> Tensor:
    """(n, 10) squared distance to a plane as a function of the position in a cell."""
    local = torch.cat((planes[:, :3], planes[:, 3:] + (planes[:, :3] * cells).sum(1, keepdim=True)), 1)
    i, j = torch.triu_indices(4, 4)
    return local[:, i] * local[:, j]


def overlaps(problem: Problem) -> tuple[Tensor, Tensor]:
    """All pairs of a triangle with an area and a cell that it touches: triangle (m,), cell (m, 3), int64."""
    p, size = touch_input(problem)
    first, end = touch_bounds(problem, p, size)
    shape = (end - first).clamp(min=0)
    counts = shape.prod(1)
    t = torch.arange(len(p), device=p.device).repeat_interleave(counts)
    offset = torch.arange(len(t), device=p.device) - (counts.cumsum(0) - counts)[t]
    _, height, depth = shape[t].unbind(1)
    cell = first[t] + torch.stack((offset // (height * depth), offset // depth % height, offset % depth), 1)
    hit = touches(p[t], size, touch_margin(problem.scene), cell)
    return t[hit], cell[hit]


def touch_input(problem: Problem) -> tuple[Tensor, Tensor]:
    """Corners of the triangles (f, 3, 3) and voxel size (3,), in the type in which touching is judged."""
    scene = problem.scene
    dtype = torch.float64 if touch_margin(scene) > 0 else torch.float32
    return scene.vertices[scene.faces.long()].to(dtype), scene.sizes(dtype)


def touch_bounds(problem: Problem, p: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """(first, end) of the cells along each axis in reach of triangles p: two (f, 3) int64. Without a margin, by rounding down."""
    cells = torch.tensor(problem.scene.resolution, device=p.device)
    margin = touch_margin(problem.scene)
    low, high = p.amin(1) / size, p.amax(1) / size
    if margin > 0:
        first, end = (low - margin).floor().long(), (high + margin).floor().long() + 1
    else:
        first, end = low.long(), (high + 1).long()
    return first.clamp(min=0), torch.minimum(end, cells)


def touches(p: Tensor, size: Tensor, margin: float, cell: Tensor) -> Tensor:
    """Whether triangles p (n, 3, 3) with an area touch the closed boxes of cells (n, 3), grown by `margin` voxels: (n,) bool.

    Tested against the triangle's plane and, in each coordinate plane, against its three edges. In float32 without a margin
    these are the operations of the original in their order: where faces lie in grid planes, the last bit decides.
    """
    e = p[:, [1, 2, 0]] - p
    (ax, ay, az), (bx, by, bz) = e[:, 0].unbind(1), e[:, 1].unbind(1)
    n = torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), 1)
    square = _dot(n, n)
    n = n / square.double().sqrt().to(n.dtype)[:, None]  # torch's float32 root is not always the nearest number
    b, low = cell.to(p.dtype) * size, -margin * size
    high = size - low
    far, near = torch.where(n > 0, high, low), torch.where(n > 0, low, high)
    distance = _dot(n, b)
    hit = (square > 0) & ~((distance + _dot(n, far - p[:, 0])) * (distance + _dot(n, near - p[:, 0])) > 0)
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        sign = torch.where(n[:, axis] < 0, -1.0, 1.0).to(n.dtype)
        for k in range(3):
            mu, mv = -sign * e[:, k, v], sign * e[:, k, u]
            reach = mu * torch.where(mu > 0, high[u], low[u]) + mv * torch.where(mv > 0, high[v], low[v])
            hit &= mu * b[:, u] + mv * b[:, v] + (reach - (mu * p[:, k, u] + mv * p[:, k, v])) >= 0
    return hit


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 0] + (a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2])


def walk(problem: Problem, edge: Tensor) -> list[list[int]]:
    """The cells along a boundary edge, from its first vertex on: always the next grid plane that the edge meets."""
    scene = problem.scene
    p, q = scene.vertices[edge].double()
    length = float((q - p).norm())
    direction = ((q - p) / length).tolist()
    cell = (p / scene.sizes()).floor().long().tolist()
    if scene.closed:
        cell = [max(0, min(c, n - 1)) for c, n in zip(cell, scene.resolution, strict=True)]
    following, gap = [math.inf] * 3, [math.inf] * 3
    for k in range(3):
        if direction[k] != 0:
            ahead = torch.tensor(cell[k] if direction[k] > 0 else cell[k] - 1)
            following[k] = (float(plane(ahead, scene.sizes()[k])) - float(p[k])) / direction[k]
            gap[k] = scene.voxel_size[k] / abs(direction[k])
    visited = [list(cell)]
    while min(following) <= length:
        x, y, z = following
        k = (0 if x < z else 2) if x < y else (1 if y < z else 2)
        following[k] += gap[k]
        after = cell[k] + (1 if direction[k] > 0 else -1)
        if scene.closed and not 0 <= after < scene.resolution[k]:
            following[k] = math.inf  # rounding only: the mesh lies inside the box
            continue
        cell[k] = after
        visited.append(list(cell))
    return [c for c in visited if all(0 <= i < n for i, n in zip(c, scene.resolution, strict=True))]


def line_quadric(problem: Problem, edge: Tensor, cell: Tensor) -> Tensor:
    """(10,) squared distance to the line through an edge as a function of the position in a cell."""
    p, q = problem.scene.vertices[edge].double()
    scale = problem.scale()
    direction = (q - p) / (q - p).norm()
    across = torch.eye(3, dtype=torch.float64, device=p.device) - direction[:, None] * direction
    a = scale[:, None] * across * scale
    start = p / problem.scene.sizes() - cell
    b = -(a @ start)
    matrix = torch.cat((torch.cat((a, b[:, None]), 1), torch.cat((b, -(start @ b)[None]))[None]))
    i, j = torch.triu_indices(4, 4)
    return matrix[i, j]
