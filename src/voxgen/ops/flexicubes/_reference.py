"""The definition: cube by cube, edges in a dictionary."""

from __future__ import annotations

import torch
from torch import Tensor

from ._geometry import between
from ._problem import Problem, Topology
from ._table import EDGES, dual_vertices, face_step, problematic_face


def extract(problem: Problem) -> tuple[Topology, Tensor]:
    """See `_problem.Extract`."""
    found = topology(problem)
    return found, place(problem, found)


def topology(problem: Problem) -> Topology:
    """Vertices of each cube; then a quad for each crossed edge that four cubes share."""
    sdf, index = problem.sdf.detach().tolist(), problem.corners.index.tolist()
    cubes = [tuple(cube) for cube in problem.grid.coords.tolist()]
    keep = [True] * len(cubes) if problem.keep is None else problem.keep.tolist()
    case = _replaced(cubes, [sum(1 << k for k in range(8) if sdf[row[k]] < 0) for row in index])
    cells: list[int] = []
    masks: list[int] = []
    around: dict[tuple[int, int], list[tuple[int, int]]] = {}  # (vertex, cell) of the cubes around an edge, in their order
    for cell, corners in enumerate(index):
        for edges in dual_vertices(case[cell]) if keep[cell] else ():
            for edge in edges:
                first, second = (corners[k] for k in EDGES[edge])
                around.setdefault((first, second), []).append((len(cells), cell))
            cells.append(cell)
            masks.append(sum(1 << e for e in edges))
    quads: list[tuple[int, int, list[int]]] = []
    for (first, second), members in around.items():
        if len(members) == 4:
            a, b, c, d = (vertex for vertex, _ in members)
            ahead = sdf[first] > 0 if problem.strict else sdf[first] >= 0
            last = members[3][1]
            axis = next(axis for axis, end in enumerate((1, 2, 4)) if index[last][end] in (first, second))
            quads.append((last, axis, [a, b, d, c] if ahead else [c, d, b, a]))
    quads.sort()
    device = problem.sdf.device
    return Topology(
        torch.tensor(case, dtype=torch.uint8, device=device),
        torch.tensor(cells, dtype=torch.int32, device=device),
        torch.tensor(masks, dtype=torch.int16, device=device),
        torch.tensor([quad for _, _, quad in quads], dtype=torch.int32, device=device).reshape(-1, 4),
        torch.tensor([cell for cell, _, _ in quads], dtype=torch.int32, device=device),
        torch.tensor([axis for _, axis, _ in quads], dtype=torch.uint8, device=device),
    )


def _replaced(cubes: list[tuple[int, ...]], case: list[int]) -> list[int]:
    """Cases after both cubes of each problematic pair took the grouping of the opposite signs."""
    row = {cube: i for i, cube in enumerate(cubes)}
    result = list(case)
    for i, (b, x, y, z) in enumerate(cubes):
        face = problematic_face(case[i])
        if face >= 0:
            dx, dy, dz = face_step(face)
            other = row.get((b, x + dx, y + dy, z + dz))
            if other is not None and problematic_face(case[other]) >= 0:
                result[i] = 255 - case[i]
    return result


def place(problem: Problem, topology: Topology) -> Tensor:
    """Dual vertex by dual vertex: its crossings, and their mean weighted by beta."""
    vertices = []
    for cell, mask in zip(topology.cell.tolist(), topology.edges.tolist(), strict=True):
        edges = [e for e in range(12) if mask >> e & 1]
        ends = torch.tensor([EDGES[e] for e in edges], device=problem.sdf.device)
        rows = problem.corners.index[cell].long()[ends]
        level = problem.sdf[rows] if problem.alpha is None else problem.sdf[rows] * problem.alpha[cell, ends]
        points = between(level, problem.positions[rows])
        weight = torch.ones_like(points[:, 0]) if problem.beta is None else problem.beta[cell, edges]
        vertices.append((weight[:, None] * points).sum(0) / weight.sum())
    return torch.stack(vertices) if vertices else problem.positions[:0] + 0 * problem.sdf[:0, None]
