"""From dual vertices and quads to vertices and faces: order, unused vertices, diagonals, centres of quads, samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from voxgen.core.batching import offsets_from_counts, unpack
from voxgen.core.grid import VoxelGrid

from ._problem import Topology
from ._surface import FlexField, FlexSurface

SMALLEST_SUM = 1e-8
"""What the original adds to the sum of both products of weights."""


class Options(NamedTuple):
    """As the arguments of `flexicubes`."""

    training: bool
    compat: bool
    keep_unused: bool


def assemble(
    grid: VoxelGrid, found: Topology, vertices: Tensor, products: Tensor, field: FlexField | None, options: Options
) -> FlexSurface:
    """Bring what an engine found in the order of the result, and cut its quads.

    Args:
        products: (q, 2) products of gamma at corners 0 and 2, and at 1 and 3, of each quad.
        field: what the result remembers; with `compat` it must be given.
    """
    if options.compat and field is not None:
        order = _original_quad_order(grid, found, field)
        picked = {name: getattr(found, name)[order] for name in ("quads", "quad_cell", "quad_axis")}
        found, products = found._replace(**picked), products.index_select(0, order)
    order = _vertex_order(found, grid, options)
    quads, cell, edges = found.quads, found.cell, found.edges
    if order is not None:
        number = torch.empty(len(cell), dtype=torch.int32, device=cell.device)
        number[order] = torch.arange(len(order), dtype=torch.int32, device=cell.device)
        quads, cell, edges, vertices = number[quads], cell[order], edges[order], vertices.index_select(0, order)
    of_vertices, of_quads = (_by_sample(grid, rows) for rows in (cell, found.quad_cell))
    if not options.training:
        faces = _cut(quads, products)
        return FlexSurface(vertices, faces, of_vertices, 2 * of_quads, quads, cell, edges, field, grid.frame.up)
    centres = _centres(vertices, quads, products, options.compat)
    if grid.batch_size > 1:  # room for the centres of the samples before
        shift = of_quads[:-1].repeat_interleave(of_vertices.diff())
        quads = (torch.arange(len(cell), device=cell.device) + shift).int()[quads]
    faces = _fans(quads, of_vertices, of_quads)
    vertices = _interleave(vertices, of_vertices, centres, of_quads)
    cell = _interleave(cell, of_vertices, cell.new_full((len(quads),), -1), of_quads)
    edges = _interleave(edges, of_vertices, edges.new_zeros(len(quads)), of_quads)
    return FlexSurface(vertices, faces, of_vertices + of_quads, 4 * of_quads, quads, cell, edges, field, grid.frame.up)


def gamma_products(found: Topology, gamma: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(q, 2) products of the weights at corners 0 and 2 of each quad, and at 1 and 3."""
    if gamma is None:
        return torch.ones(len(found.quads), 2, dtype=dtype, device=found.quads.device)
    a, b, c, d = embedding(found.cell[found.quads], gamma[:, None])[..., 0].unbind(1)
    return torch.stack((a * c, b * d), 1)


def _cut(quads: Tensor, products: Tensor) -> Tensor:
    """Two triangles a quad: (0, 1, 2), (0, 2, 3) if the first product is greater, else (0, 1, 3), (3, 1, 2)."""
    a, b, c, d = quads.unbind(1)
    first = products[:, 0] > products[:, 1]
    columns = (a, b, torch.where(first, c, d), torch.where(first, a, d), torch.where(first, c, b), torch.where(first, d, c))
    return torch.stack(columns, 1).reshape(-1, 3)


def _fans(quads: Tensor, of_vertices: Tensor, of_quads: Tensor) -> Tensor:
    """Four triangles around the centre of each quad."""
    sample = torch.arange(len(of_quads) - 1, device=quads.device).repeat_interleave(of_quads.diff())
    m = (of_vertices[1:][sample] + torch.arange(len(quads), device=quads.device)).int()
    a, b, c, d = quads.unbind(1)
    return torch.stack((a, b, m, b, c, m, c, d, m, d, a, m), 1).reshape(-1, 3)


def _vertex_order(found: Topology, grid: VoxelGrid, options: Options) -> Tensor | None:
    """Rows of the vertices that stay, in their new order; None if nothing changes."""
    rows = None
    if not options.keep_unused:
        used = torch.zeros(len(found.cell), dtype=torch.bool, device=found.cell.device)
        used[found.quads.flatten()] = True
        if not bool(used.all()):
            rows = used.nonzero()[:, 0]
    if options.compat:  # by sample, by number of vertices of the cube, then as they are
        siblings = torch.bincount(found.cell, minlength=len(grid))[found.cell]
        key = grid.batch[found.cell].long() * 8 + siblings
        return key.argsort(stable=True) if rows is None else rows[key[rows].argsort(stable=True)]
    return rows


def _original_quad_order(grid: VoxelGrid, found: Topology, field: FlexField) -> Tensor:
    """Quads by sample, those whose edge begins at a positive corner first, then by the rows of the ends of their edge."""
    cell, axis = found.quad_cell.long(), found.quad_axis.long()
    low, high = field.index[cell, 0].long(), field.index[cell, 1 << axis].long()
    first, second = torch.where(axis == 1, high, low), torch.where(axis == 1, low, high)
    behind = (field.sdf.detach()[first] <= 0).long()
    order = second.argsort(stable=True)
    for key in (first, 2 * grid.batch[cell].long() + behind):
        order = order[key[order].argsort(stable=True)]
    return order


def _by_sample(grid: VoxelGrid, cells: Tensor) -> Tensor:
    """(b + 1,) int64 bounds of the samples among rows that belong to these cells."""
    return offsets_from_counts(torch.bincount(grid.batch[cells], minlength=grid.batch_size))


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
