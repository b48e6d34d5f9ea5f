"""From dual vertices and quads to vertices and faces: order, unused vertices, diagonals, centres of quads, samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from voxgen.core.batching import offsets_from_counts, unpack
from voxgen.core.grid import VoxelGrid

from ._problem import Problem, Topology
from ._surface import FlexField, FlexSurface

SMALLEST_SUM = 1e-8
"""What the original adds to the sum of both products of weights."""


def assemble(
    problem: Problem, found: Topology, vertices: Tensor, gamma: Tensor | None, training: bool, compat: bool, keep_unused: bool
) -> FlexSurface:
    """Bring what an engine found in the order of the result, and cut its quads."""
    grid = problem.grid
    if compat:
        found = found._replace(**_original_quad_order(problem, found))
    order = _vertex_order(found, grid, compat, keep_unused)
    quads, cell, edges = found.quads, found.cell, found.edges
    if order is not None:
        number = torch.empty(len(cell), dtype=torch.int32, device=cell.device)
        number[order] = torch.arange(len(order), dtype=torch.int32, device=cell.device)
        quads, cell, edges, vertices = number[quads], cell[order], edges[order], vertices.index_select(0, order)
    of_vertices, of_quads = (_by_sample(grid, rows) for rows in (cell, found.quad_cell))
    products = _products(quads, cell, gamma, vertices.dtype)
    if training:
        centres = _centres(vertices, quads, products, compat)
        shift = of_quads[:-1].repeat_interleave(of_vertices.diff()) if grid.batch_size > 1 else None
        if shift is not None:  # centres of the samples before
            quads = (torch.arange(len(cell), device=cell.device) + shift).int()[quads]
        sample = torch.arange(grid.batch_size, device=cell.device).repeat_interleave(of_quads.diff())
        middle = (of_vertices[1:][sample] + torch.arange(len(quads), device=cell.device)).int()
        vertices = _interleave(vertices, of_vertices, centres, of_quads)
        cell = _interleave(cell, of_vertices, cell.new_full((len(quads),), -1), of_quads)
        edges = _interleave(edges, of_vertices, edges.new_zeros(len(quads)), of_quads)
        a, b, c, d = quads.unbind(1)
        faces = torch.stack((a, b, middle, b, c, middle, c, d, middle, d, a, middle), 1).reshape(-1, 3)
        of_vertices = of_vertices + of_quads
    else:
        a, b, c, d = quads.unbind(1)
        first = products[:, 0] > products[:, 1]
        # (0, 1, 2), (0, 2, 3) or (0, 1, 3), (3, 1, 2)
        columns = (a, b, torch.where(first, c, d), torch.where(first, a, d), torch.where(first, c, b), torch.where(first, d, c))
        faces = torch.stack(columns, 1).reshape(-1, 3)
    field = FlexField(problem.corners.index, problem.sdf, problem.positions)
    return FlexSurface(vertices, faces, of_vertices, of_quads * (4 if training else 2), quads, cell, edges, field, grid.frame.up)


def _vertex_order(found: Topology, grid: VoxelGrid, compat: bool, keep_unused: bool) -> Tensor | None:
    """Rows of the vertices that stay, in their new order; None if nothing changes."""
    rows = None
    if not keep_unused:
        used = torch.zeros(len(found.cell), dtype=torch.bool, device=found.cell.device)
        used[found.quads.flatten()] = True
        if not bool(used.all()):
            rows = used.nonzero()[:, 0]
    if compat:  # by sample, by number of vertices of the cube, then as they are
        siblings = torch.bincount(found.cell, minlength=len(grid))[found.cell]
        key = grid.batch[found.cell].long() * 8 + siblings
        return key.argsort(stable=True) if rows is None else rows[key[rows].argsort(stable=True)]
    return rows


def _original_quad_order(problem: Problem, found: Topology) -> dict[str, Tensor]:
    """Quads by sample, those whose edge begins at a positive corner first, then by the rows of the ends of their edge."""
    cell, axis = found.quad_cell.long(), found.quad_axis.long()
    low = problem.corners.index[cell, 0].long()
    high = problem.corners.index[cell, 1 << axis].long()
    first, second = torch.where(axis == 1, high, low), torch.where(axis == 1, low, high)
    behind = (problem.sdf.detach()[first] <= 0).long()
    order = second.argsort(stable=True)
    for key in (first, 2 * problem.grid.batch[cell].long() + behind):
        order = order[key[order].argsort(stable=True)]
    return {"quads": found.quads[order], "quad_cell": found.quad_cell[order], "quad_axis": found.quad_axis[order]}


def _by_sample(grid: VoxelGrid, cells: Tensor) -> Tensor:
    """(b + 1,) int64 bounds of the samples among rows that belong to these cells."""
    return offsets_from_counts(torch.bincount(grid.batch[cells], minlength=grid.batch_size))


def _products(quads: Tensor, cell: Tensor, gamma: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(q, 2) products of the weights at corners 0 and 2, and at 1 and 3."""
    if gamma is None:
        return torch.ones(len(quads), 2, dtype=dtype, device=quads.device)
    a, b, c, d = embedding(cell[quads], gamma[:, None])[..., 0].unbind(1)
    return torch.stack((a * c, b * d), 1)


def _centres(vertices: Tensor, quads: Tensor, products: Tensor, compat: bool) -> Tensor:
    """(q, 3) means of the middles of both diagonals, weighted; the plain mean where both weights vanish."""
    a, b, c, d = embedding(quads, vertices).unbind(1)
    if compat:
        total = products.sum(1, keepdim=True) + SMALLEST_SUM
    else:
        products = torch.where(products.sum(1, keepdim=True) == 0, 1, products)
        total = products.sum(1, keepdim=True)
    return (products[:, :1] * (a + c) / 2 + products[:, 1:] * (b + d) / 2) / total


def _interleave(vertices: Tensor, vertex_offsets: Tensor, centres: Tensor, centre_offsets: Tensor) -> Tensor:
    """For each sample its vertices, then its centres."""
    pairs = zip(unpack(vertices, vertex_offsets), unpack(centres, centre_offsets), strict=True)
    return torch.cat([vertices[:0], *(part for pair in pairs for part in pair)])
