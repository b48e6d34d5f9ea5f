"""The definition: cube by cube."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from voxgen.core.grid import VoxelGrid

from ._table import CORNERS, EDGES, FACES, ambiguous_faces, cube_triangles


def topology(grid: VoxelGrid, values: Tensor) -> tuple[Tensor, Tensor]:
    """See `_surface.Topology`."""
    corners = torch.tensor([(0, *corner) for corner in CORNERS], dtype=torch.int32, device=grid.device)
    rows = grid.rows_of((grid.coords[:, None] + corners).reshape(-1, 4)).view(-1, 8)
    triangles: list[list[tuple[int, int]]] = []  # of vertices, each by the row of the edge's lower cell and its axis
    crossed: dict[tuple[int, int], int] = {}  # and the row of its upper cell
    for cube in rows[(rows >= 0).all(1)].tolist():
        at = [float(values[row]) for row in cube]
        case = sum(1 << k for k in range(8) if at[k] < 0)
        keys = [(cube[low], edge // 4) for edge, (low, _) in enumerate(EDGES)]
        for key, (low, high) in zip(keys, EDGES, strict=True):
            if (at[low] < 0) != (at[high] < 0):
                crossed[key] = cube[high]
        for triangle in cube_triangles(case, _joined(case, [values[row] for row in cube])):
            triangles.append([keys[edge] for edge in triangle])
    order = sorted(crossed)
    number = {key: i for i, key in enumerate(order)}
    edges = [(row, crossed[row, axis]) for row, axis in order]
    faces = [number[key] for key in itertools.chain.from_iterable(triangles)]
    return (
        torch.tensor(edges, dtype=torch.int32, device=grid.device).reshape(-1, 2),
        torch.tensor(faces, dtype=torch.int32, device=grid.device).reshape(-1, 3),
    )


def _joined(case: int, at: list[Tensor]) -> int:
    """Bit f: face f is ambiguous and its bilinear interpolant has a saddle below the level, so its inside corners are joined."""
    mask = 0
    for f, (a, b, c, d) in enumerate(FACES):
        if ambiguous_faces(case) >> f & 1:
            first, second = at[a] * at[c], at[b] * at[d]
            inside, outside = (first, second) if case >> a & 1 else (second, first)
            mask |= int(inside > outside) << f
    return mask
