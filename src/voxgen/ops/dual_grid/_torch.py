"""Vectorised engine for any device: sums by cell over chunks of crossings, overlaps and edges, then one batched minimum.

Every sum has a fixed order (index_add_ of one column on the CPU, sorted index_put_ on CUDA), so a second run gives the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core.coords import unpack_keys
from voxgen.ops.qef._reference import PULL, pulled
from voxgen.ops.qef._torch import minimise
from voxgen.ops.voxelize._reference import cell_keys, neighbourhood, plane
from voxgen.ops.voxelize._torch import CHUNK, active_cells, crossings, expand

from ._prepare import Problem, touch_margin
from ._reference import folded, touch_bounds, touch_input, touches, triangle_planes

LINEAR = (3, 6, 8)
"""Columns of the linear part in the ten of a quadric."""
UPPER = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 2), (2, 3))
"""Entries of a symmetric 4×4 matrix that matter for its minimum."""


def dual_grid(problem: Problem, progress: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `voxgen.ops.dual_grid.dual_grid`."""
    scene = problem.scene
    with tqdm(total=5, desc="dual grid", unit="stage", disable=not progress) as bar:
        sums = Sums(active_cells(scene))
        planes = triangle_planes(problem)
        bar.update()
        crossed = torch.zeros((len(sums.keys), 3), dtype=torch.bool, device=sums.keys.device)
        balance = torch.zeros((3, len(sums.keys)), dtype=torch.int32, device=sums.keys.device)
        times, normals = torch.zeros_like(balance), torch.zeros((3, len(sums.keys), 3), device=sums.keys.device)
        for found, axis in crossings(scene):
            normal = planes[found.triangle]
            position = found.points / scene.sizes()
            for touched in neighbourhood(found.cells, axis):
                row, _ = sums.rows(touched)
                values = plane_quadrics(normal, touched)
                values += [position[:, k] - touched[:, k] for k in range(3)]
                sums.add(row, [*values, torch.ones_like(position[:, 0])])
            row, _ = sums.rows(found.cells)
            crossed[row, axis] = True
            balance[axis].index_add_(0, row, normal[:, axis].sign().int())
            times[axis].index_add_(0, row, torch.ones_like(row, dtype=torch.int32))
            normals[axis].index_add_(0, row, (normal[:, :3] / problem.scale()).float())
        crossed &= ~folded(scene, times.T, balance.T, normals.transpose(0, 1))
        del times, normals
        bar.update()
        if problem.face_weight > 0:
            for triangle, cell in overlaps(problem, planes):
                row, active = sums.rows(cell)
                values = plane_quadrics(planes[triangle[active]], cell[active])
                sums.add(row[active], [problem.face_weight * v for v in values])
        bar.update()
        for edge, cell in walks(problem):
            row, active = sums.rows(cell)
            sums.add(row[active], line_quadrics(problem, edge[active], cell[active]))
        bar.update()
        dual = torch.empty((len(sums.keys), 3), dtype=torch.float32, device=sums.keys.device)
        for begin in range(0, len(dual), CHUNK):
            dual[begin : begin + CHUNK] = solve(problem, sums.values[:, begin : begin + CHUNK])
        bar.update()
    return unpack_keys(sums.keys)[:, 1:].contiguous(), dual, crossed, (balance > 0).T.contiguous()


class Sums:
    """Thirteen sums for each active cell: nine of the quadric (`UPPER`), three of the crossing points, and the crossings' number."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys
        self.values = torch.zeros((13, len(keys)), dtype=torch.float64, device=keys.device)

    def rows(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Row of each cell, and whether the cell is active (else the row means nothing)."""
        keys = cell_keys(cells)
        row = torch.searchsorted(self.keys, keys).clamp(max=max(len(self.keys) - 1, 0))
        return row, self.keys[row] == keys if len(self.keys) else torch.zeros_like(row, dtype=torch.bool)

    def add(self, row: Tensor, values: list[Tensor]) -> None:
        """Add to the first columns of some rows; a row may come several times."""
        for column, value in zip(self.values, values, strict=False):
            if row.device.type == "cuda":
                column.index_put_((row,), value, accumulate=True)  # sorts; index_add_ would add in any order
            else:
                column.index_add_(0, row, value)


def plane_quadrics(planes: Tensor, cells: Tensor) -> list[Tensor]:
    """Squared distance to planes as functions of the position in cells: the columns `UPPER`."""
    x, y, z, d = planes.unbind(1)
    d = d + (x * cells[:, 0] + y * cells[:, 1] + z * cells[:, 2])
    m = (x, y, z, d)
    return [m[i] * m[j] for i, j in UPPER]


def line_quadrics(problem: Problem, edge: Tensor, cells: Tensor) -> list[Tensor]:
    """Weighted squared distance to boundary edges as functions of the position in cells: the columns `UPPER`."""
    ends = problem.scene.vertices[problem.edges[edge]].double()
    p, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    along = along / along.norm(dim=1, keepdim=True)
    scale = problem.scale()
    eye = torch.eye(3, dtype=torch.float64, device=p.device)
    a = scale[:, None] * (eye - along[:, :, None] * along[:, None]) * scale
    start = p / problem.scene.sizes() - cells
    matrix = torch.cat((a, -(a @ start[:, :, None])), 2) * problem.boundary_weight
    return [matrix[:, i, j] for i, j in UPPER]


def overlaps(problem: Problem, planes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a triangle and a cell that it touches, in pieces: the columns of its bounding box, then the cells of each
    column that its plane may pass, then the exact test."""
    corners, size = touch_input(problem)
    margin = touch_margin(problem.scene)
    slack = 1e-6 * max(problem.scene.resolution)  # within which the test may differ from exact arithmetic, in cells
    first, end = touch_bounds(problem, corners, size)
    shape = (end - first).clamp(min=0)
    reach = planes[:, :3].abs().sum(1) / 2 + slack
    middle = planes[:, 3] + planes[:, :3].sum(1) / 2
    steep = planes[:, 2].abs() >= 1e-6 * (planes[:, 0].abs() + planes[:, 1].abs())
    for t, step in expand(shape[:, 0] * shape[:, 1] * (shape[:, 2] > 0)):
        i = first[t, 0] + step // shape[t, 1]
        j = first[t, 1] + step % shape[t, 1]
        value = planes[t, 0] * i + planes[t, 1] * j + middle[t]
        a, b = -(value + reach[t]) / planes[t, 2], -(value - reach[t]) / planes[t, 2]
        low, high = first[t, 2], end[t, 2]
        begin = torch.where(steep[t], torch.minimum(a, b).ceil().clamp(-1, 1 << 20).long(), low).maximum(low)
        stop = torch.where(steep[t], torch.maximum(a, b).floor().clamp(-1, 1 << 20).long() + 1, high).minimum(high)
        for column, step in expand((stop - begin).clamp(min=0)):
            cell = torch.stack((i[column], j[column], begin[column] + step), 1)
            triangle = t[column]
            hit = touches(corners[triangle], size, margin, cell)
            yield triangle[hit], cell[hit]


def walks(problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a boundary edge and a cell on its way, in pieces. All edges step together, as in `_reference.walk`."""
    scene = problem.scene
    if len(problem.edges) == 0:
        return
    cells, sizes = torch.tensor(scene.resolution, device=problem.edges.device), scene.sizes()
    p, q = scene.vertices[problem.edges].double().unbind(1)
    length = (q - p).norm(dim=1)
    direction = (q - p) / length[:, None]
    cell = (p / sizes).floor().long()
    if scene.closed:
        cell = torch.minimum(cell.clamp(min=0), cells - 1)
    step = direction.sign().long()
    ahead = torch.stack([plane(cell[:, k] - (step[:, k] < 0).long(), sizes[k]) for k in range(3)], 1)
    following = torch.where(step == 0, torch.inf, (ahead - p) / direction)
    gap = sizes / direction.abs()
    edge = torch.arange(len(p), device=p.device)
    gathered: list[tuple[Tensor, Tensor]] = []
    waiting = 0
    moved = torch.ones_like(edge, dtype=torch.bool)
    while len(edge):
        visited = moved & ((cell >= 0) & (cell < cells)).all(1)
        gathered.append((edge[visited], cell[visited]))
        waiting += len(edge)
        if waiting > CHUNK:
            yield torch.cat([g[0] for g in gathered]), torch.cat([g[1] for g in gathered])
            gathered, waiting = [], 0
        x, y, z = following.unbind(1)
        axis = torch.where(x < y, torch.where(x < z, 0, 2), torch.where(y < z, 1, 2))[:, None]
        going = following.gather(1, axis)[:, 0] <= length
        edge, cell, step, following, gap, length, axis = (s[going] for s in (edge, cell, step, following, gap, length, axis))
        after = cell.gather(1, axis) + step.gather(1, axis)
        following = following.scatter_add(1, axis, gap.gather(1, axis))
        moved = torch.ones_like(edge, dtype=torch.bool)
        if scene.closed:
            moved = ((after >= 0) & (after < cells[axis]))[:, 0]
            following = torch.where(moved[:, None], following, following.scatter(1, axis, torch.inf))
        cell = torch.where(moved[:, None], cell.scatter(1, axis, after), cell)
    yield torch.cat([g[0] for g in gathered]), torch.cat([g[1] for g in gathered])


def solve(problem: Problem, sums: Tensor) -> Tensor:
    """Dual vertices (n, 3) from sums (13, n)."""
    quadric, means, times = sums[:9], sums[9:12], sums[12]
    q = torch.zeros((sums.shape[1], 10), dtype=torch.float64, device=sums.device)
    q[:, :9] = quadric.T
    weight = problem.regularization * problem.scale() ** 2
    q[:, [0, 4, 7]] += weight * times[:, None]
    q[:, list(LINEAR)] -= weight * means.T
    a, b = pulled(q, (means / times).T, PULL[torch.float64])
    return minimise(a, b, torch.zeros_like(b), torch.ones_like(b)).float()
