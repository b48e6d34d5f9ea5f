"""Dual grids of exact shapes: cells, dual vertices and edge flags from a distance function, at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.coords import pack_keys, unpack_keys

Distance = Callable[[Tensor], Tensor]

AROUND_EDGE = torch.tensor(
    [
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
    ]
)
"""The four cells around the x, y and z edge at the highest corner of cell (0, 0, 0), in no particular order."""


class Shell(NamedTuple):
    """The cells around the crossed lattice edges of one solid; fields as `dual_faces` takes them."""

    grid: VoxelGrid
    dual: Tensor
    intersected: Tensor
    crossing_sign: Tensor


def ball(points: Tensor, radius: float = 0.4, center: tuple[float, float, float] = (0.01, -0.02, 0.03)) -> Tensor:
    """Signed distance of a ball, negative inside."""
    return (points - torch.tensor(center).to(points)).norm(dim=-1) - radius


def ring(points: Tensor, major: float = 0.25, minor: float = 0.08, center: tuple[float, float, float] = (0.01, 0.02, -0.01)) -> Tensor:
    """Signed distance of a solid torus about the z axis."""
    x, y, z = (points - torch.tensor(center).to(points)).unbind(-1)
    return torch.hypot(torch.hypot(x, y) - major, z) - minor


def hollow_ball(points: Tensor) -> Tensor:
    """A ball with a cavity of the shape of a ring: an outer and an inner surface, 3.6 M cells at 1024³."""
    return torch.maximum(ball(points, 0.381), -ring(points, 0.2, 0.06))


def shell(distance: Distance = hollow_ball, resolution: int = 32) -> Shell:
    """The dual grid of {distance < 0} in the unit cube.

    Args:
        distance: (..., 3) float64 world points → (...) values of slope at most 1, positive on the border of the cube.
        resolution: cells an axis, a power of two.
    """
    candidates = _near_surface(distance, resolution)
    flags, signs = (torch.cat(parts) for parts in zip(*(_edges(distance, c, resolution) for c in candidates.split(1 << 20)), strict=True))
    owner, axis = flags.nonzero().unbind(1)
    around = candidates[owner][:, None] + AROUND_EDGE[axis]
    keys = _keys(around.reshape(-1, 3)).unique()
    grid = VoxelGrid.from_sorted(unpack_keys(keys), resolution=resolution, batch_size=1)
    row = torch.searchsorted(_keys(candidates), keys)
    dual = torch.cat([_foot_points(distance, c, resolution) for c in grid.cells.long().split(1 << 20)])
    return Shell(grid, dual, flags[row], signs[row])


def _keys(cells: Tensor) -> Tensor:
    return pack_keys(torch.nn.functional.pad(cells, (1, 0)))


def _near_surface(distance: Distance, resolution: int) -> Tensor:
    """(m, 3) int64 sorted cells that the surface may touch, by halving cells from 8³ on."""
    side = min(8, resolution)
    axis = torch.arange(side)
    cells = torch.cartesian_prod(axis, axis, axis)
    child = torch.cartesian_prod(*[torch.arange(2)] * 3)
    while True:
        near = [distance((c.double() + 0.5) / side - 0.5).abs() <= 0.8661 / side for c in cells.split(1 << 20)]
        cells = cells[torch.cat(near)]
        if side == resolution:
            return cells[_keys(cells).argsort()]
        cells = (2 * cells[:, None] + child).reshape(-1, 3)
        side *= 2


def _edges(distance: Distance, cells: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Which of the three edges of each cell are crossed, and whether the surface's normal there points towards +."""

    def inside(corner: tuple[int, int, int]) -> Tensor:
        return distance((cells + torch.tensor(corner)).double() / resolution - 0.5) < 0

    high = inside((1, 1, 1))
    low = torch.stack((inside((0, 1, 1)), inside((1, 0, 1)), inside((1, 1, 0))), 1)
    return low != high[:, None], low & ~high[:, None]


def _foot_points(distance: Distance, cells: Tensor, resolution: int) -> Tensor:
    """(n, 3) float32 local positions: the centre of each cell moved to the surface along the gradient, kept in the cell."""
    center = (cells.double() + 0.5) / resolution - 0.5
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    slope = torch.stack([distance(center + s) - distance(center - s) for s in step], -1) / 2e-6
    square = slope.square().sum(1, keepdim=True).clamp(min=1e-12)  # 1 where the function is a distance
    return (0.5 - distance(center)[:, None] * slope / square * resolution).clamp(0, 1).float()
