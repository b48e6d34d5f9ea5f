"""Dual vertices and their gradients, compiled for the CPU: no crossing is ever stored.

Going back, threads own cells, which write what their corners get side by side; then threads own corners and collect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from voxgen.ops.cube_corners import CubeCorners
from voxgen.ops.cube_corners._numba_transfer import cells_around

from ._table import EDGES

_EDGES = np.array(EDGES, dtype=np.int64)


class Place(torch.autograd.Function):
    """See `_geometry.place`."""

    @staticmethod
    def forward(
        ctx: Any,
        sdf: Tensor,
        positions: Tensor,
        alpha: Tensor | None,
        beta: Tensor | None,
        corners: CubeCorners,
        cell: Tensor,
        edges: Tensor,
    ) -> Tensor:
        field = (sdf.contiguous(), positions.contiguous(), _weights(sdf, alpha, 8), _weights(sdf, beta, 12))
        vertices = positions.new_empty(len(cell), 3)
        _place(_arrays(corners, field), cell.numpy(), edges.numpy(), vertices.numpy())
        ctx.corners = corners
        ctx.save_for_backward(*field, cell, edges, vertices)
        return vertices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        sdf, positions, alpha, beta, cell, edges, vertices = ctx.saved_tensors
        corners, needs = ctx.corners, ctx.needs_input_grad
        runs = _runs(cell.numpy())
        grad_alpha, grad_beta = torch.zeros_like(alpha), torch.zeros_like(beta)
        at_cubes = np.empty((len(runs) - 1, 8, 4), dtype=vertices.numpy().dtype)
        slot = np.full(len(corners.index), -1, np.int32)
        field, upstream = _arrays(corners, (sdf, positions, alpha, beta)), grad.contiguous().numpy()
        _back(field, edges.numpy(), vertices.numpy(), upstream, cell.numpy(), runs, slot, at_cubes, grad_alpha.numpy(), grad_beta.numpy())
        grad_sdf, grad_positions = torch.empty_like(sdf), torch.empty_like(positions)
        if needs[0] or needs[1]:
            cells = corners.cached("cells", lambda: cells_around(corners))
            _collect(cells.numpy(), slot, at_cubes, grad_sdf.numpy(), grad_positions.numpy())
        found = (grad_sdf, grad_positions, grad_alpha, grad_beta)
        return *(g if wanted else None for g, wanted in zip(found, needs, strict=False)), None, None, None


def _weights(like: Tensor, weight: Tensor | None, width: int) -> Tensor:
    """The weights, or no rows, which stand for ones."""
    return like.new_zeros(0, width) if weight is None else weight.contiguous()


def _arrays(corners: CubeCorners, field: tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
    """Rows of corners of each cell, values and positions of corners, alpha and beta."""
    return corners.index.numpy(), *(t.detach().numpy() for t in field)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _ends(index, sdf, alpha, cell, e):  # pyright: ignore
    """Rows of both ends of an edge, their values times alpha, and the share of the way to the second where the zero is."""
    a, b = _EDGES[e, 0], _EDGES[e, 1]
    p, q = index[cell, a], index[cell, b]
    first, second = sdf[p], sdf[q]
    if len(alpha) > 0:
        first, second = first * alpha[cell, a], second * alpha[cell, b]
    span = first - second
    share = first / span if span != 0 else type(span)(0.5)
    return p, q, first, second, span, share


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _place(field, cells, edges, vertices):  # pyright: ignore
    index, sdf, positions, alpha, beta = field
    for v in prange(len(cells)):
        cell = cells[v]
        x = y = z = total = sdf.dtype.type(0)
        for e in range(12):
            if (edges[v] >> e) & 1:
                p, q, _, _, _, share = _ends(index, sdf, alpha, cell, e)
                weight = beta[cell, e] if len(beta) > 0 else sdf.dtype.type(1)
                x += weight * (positions[p, 0] + share * (positions[q, 0] - positions[p, 0]))
                y += weight * (positions[p, 1] + share * (positions[q, 1] - positions[p, 1]))
                z += weight * (positions[p, 2] + share * (positions[q, 2] - positions[p, 2]))
                total += weight
        vertices[v, 0], vertices[v, 1], vertices[v, 2] = x / total, y / total, z / total


@njit(cache=True, nogil=True, error_model="numpy")
def _runs(cells):  # pyright: ignore
    """First vertex of each cell that has some, with an end."""
    starts = np.empty(len(cells) + 1, np.int64)
    count = 0
    for v in range(len(cells)):
        if v == 0 or cells[v] != cells[v - 1]:
            starts[count] = v
            count += 1
    starts[count] = len(cells)
    return starts[: count + 1]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _back(field, edges, vertices, upstream, cells, runs, slot, at_cubes, grad_alpha, grad_beta):  # pyright: ignore
    """Gradients of the weights, and of value and position of each corner by cell. `slot`: the place of each cell in `at_cubes`."""
    index, sdf, positions, alpha, beta = field
    real = sdf.dtype.type
    for r in prange(len(runs) - 1):
        cell = cells[runs[r]]
        slot[cell] = r
        at_cubes[r] = 0
        for v in range(runs[r], runs[r + 1]):
            total = real(0)
            for e in range(12):
                if (edges[v] >> e) & 1:
                    total += beta[cell, e] if len(beta) > 0 else real(1)
            gx, gy, gz = upstream[v, 0] / total, upstream[v, 1] / total, upstream[v, 2] / total
            for e in range(12):
                if not (edges[v] >> e) & 1:
                    continue
                p, q, _, second, span, share = _ends(index, sdf, alpha, cell, e)
                dx, dy, dz = positions[q, 0] - positions[p, 0], positions[q, 1] - positions[p, 1], positions[q, 2] - positions[p, 2]
                weight = real(1)
                if len(beta) > 0:
                    weight = beta[cell, e]
                    x, y, z = positions[p, 0] - vertices[v, 0], positions[p, 1] - vertices[v, 1], positions[p, 2] - vertices[v, 2]
                    grad_beta[cell, e] = gx * (x + share * dx) + gy * (y + share * dy) + gz * (z + share * dz)
                a, b = _EDGES[e, 0], _EDGES[e, 1]
                rest = weight * (real(1) - share)
                at_cubes[r, a, 1] += rest * gx
                at_cubes[r, a, 2] += rest * gy
                at_cubes[r, a, 3] += rest * gz
                at_cubes[r, b, 1] += weight * share * gx
                at_cubes[r, b, 2] += weight * share * gy
                at_cubes[r, b, 3] += weight * share * gz
                if span == 0:
                    continue
                slope = weight * (gx * dx + gy * dy + gz * dz)
                to_first, to_second = -slope * (second / span) / span, slope * share / span
                if len(alpha) > 0:
                    grad_alpha[cell, a] += to_first * sdf[p]
                    grad_alpha[cell, b] += to_second * sdf[q]
                    to_first, to_second = to_first * alpha[cell, a], to_second * alpha[cell, b]
                at_cubes[r, a, 0] += to_first
                at_cubes[r, b, 0] += to_second


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _collect(cells, slot, at_cubes, grad_sdf, grad_positions):  # pyright: ignore
    for i in prange(len(cells)):
        s = x = y = z = grad_sdf.dtype.type(0)
        for k in range(8):
            if cells[i, k] >= 0:
                r = slot[cells[i, k]]
                if r >= 0:
                    s += at_cubes[r, k, 0]
                    x += at_cubes[r, k, 1]
                    y += at_cubes[r, k, 2]
                    z += at_cubes[r, k, 3]
        grad_sdf[i] = s
        grad_positions[i, 0], grad_positions[i, 1], grad_positions[i, 2] = x, y, z
