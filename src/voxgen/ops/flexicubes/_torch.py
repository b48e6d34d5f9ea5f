"""Vectorised, on any device: cells in pieces, cubes by the grid's block index."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._torch import rows_near

from ._geometry import place
from ._problem import Problem, Topology
from ._table import AROUND, EDGES, OWN_EDGES, face_step, table

CHUNK = 1 << 18
"""Cells looked at in one piece."""


def extract(problem: Problem) -> tuple[Topology, Tensor]:
    """See `_problem.Extract`."""
    with torch.no_grad():
        found = topology(problem)
    return found, place(problem, found)


def topology(problem: Problem) -> Topology:
    """See `_reference.topology`."""
    device, known = problem.sdf.device, table()
    inside = problem.sdf < 0
    bits = torch.arange(8, device=device)
    signs = torch.cat([(inside[rows].long() << bits).sum(1).to(torch.uint8) for rows in problem.corners.index.split(CHUNK)])
    case = _replaced(problem, signs, torch.from_numpy(known.direction).to(device))
    counts = torch.from_numpy(known.counts).to(device)[case.int()].int()
    if problem.keep is not None:
        counts = torch.where(problem.keep, counts, 0)
    first = (counts.cumsum(0) - counts).int()
    cell = torch.arange(len(case), dtype=torch.int32, device=device).repeat_interleave(counts)
    nth = torch.arange(len(cell), device=device) - first[cell]
    edges = torch.from_numpy(known.groups).to(device)[case[cell].int(), nth]
    quads, owner, axis = _quads(problem, signs, case, counts > 0, first, torch.from_numpy(known.member).to(device))
    return Topology(case, cell, edges, quads, owner, axis)


def _replaced(problem: Problem, signs: Tensor, direction: Tensor) -> Tensor:
    """See `_reference._replaced`."""
    face = direction[signs.int()]
    rows = (face >= 0).nonzero()[:, 0]
    if len(rows) == 0:
        return signs
    steps = torch.tensor([face_step(f) for f in range(6)], dtype=torch.int32, device=signs.device)[face[rows].int()]
    b, x, y, z = problem.grid.coords[rows].unbind(1)
    dx, dy, dz = steps.unbind(1)
    other = rows_near(block_index(problem.grid, backend="torch"), b, x + dx, y + dy, z + dz)
    both = rows[(other >= 0) & (face[other.clamp_min(0)] >= 0)]
    return signs.index_copy(0, both, 255 - signs[both])


def _quads(problem: Problem, signs: Tensor, case: Tensor, active: Tensor, first: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices of the quads, and the cell and axis that each belongs to."""
    device = signs.device
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in active.nonzero()[:, 0].split(CHUNK):
        for axis, around in enumerate(AROUND):
            a, b = EDGES[OWN_EDGES[axis]]
            owner = rows[(signs[rows] >> a ^ signs[rows] >> b) & 1 == 1]
            sample, x, y, z = problem.grid.coords[owner].unbind(1)
            index = block_index(problem.grid, backend="torch")
            cells = torch.stack([rows_near(index, sample, x + i, y + j, z + k) for (i, j, k), _ in around], 1)
            whole = (cells >= 0).all(1) & active[cells.clamp_min(0)].all(1)
            owner, cells = owner[whole], cells[whole]
            edge = torch.tensor([e for _, e in around], device=device)
            quads = first[cells] + member[case[cells].int(), edge].int()
            value = problem.sdf[problem.corners.index[owner, a]]
            ahead = value > 0 if problem.strict else value >= 0
            quads = torch.where(ahead[:, None], quads[:, [0, 1, 3, 2]], quads[:, [2, 3, 1, 0]])
            parts.append((quads, owner, torch.full_like(owner, axis)))
    if not parts:
        none = torch.zeros(0, dtype=torch.int32, device=device)
        return none.reshape(0, 4), none, none.to(torch.uint8)
    quads, owner, axis = (torch.cat(part) for part in zip(*parts, strict=True))
    order = (3 * owner + axis).argsort()
    return quads[order], owner[order].int(), axis[order].to(torch.uint8)
