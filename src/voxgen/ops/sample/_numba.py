"""Sampling compiled for the CPU, threaded over points; the gradient to feats is threaded over rows, so nothing races."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import block_index
from voxgen.ops.lookup._numba import arrays, row_near

from ._reference import SMALLEST_SUM


def sample(kind: str, feats: Tensor, grid: VoxelGrid, points: Tensor, batch: Tensor) -> Tensor:
    """See `_reference.sample`."""
    wide = feats.to(torch.promote_types(feats.dtype, torch.float32)).contiguous()
    return _Sample.apply(wide, points.contiguous(), batch.contiguous(), grid, kind).to(feats.dtype)


class _Sample(torch.autograd.Function):
    """Taps of each point (rows and weights), then their weighted sum."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, points: Tensor, batch: Tensor, grid: VoxelGrid, kind: str) -> Tensor:
        taps = 8 if kind == "trilinear" else 1
        rows = torch.empty(len(points), taps, dtype=torch.int32)
        weights = torch.ones(len(points), taps, dtype=points.dtype)
        index, limits = arrays(block_index(grid, backend="numba")), np.array(grid.resolution, dtype=np.int64)
        if kind == "trilinear":
            _trilinear_taps(*index, limits, points.detach().numpy(), batch.numpy(), rows.numpy(), weights.numpy())
        else:
            _nearest_taps(*index, limits, points.detach().numpy(), batch.numpy(), kind == "truncated", rows.numpy())
        out = torch.empty(len(points), feats.shape[1], dtype=feats.dtype)
        _gather(feats.detach().numpy(), rows.numpy(), weights.numpy(), out.numpy())
        ctx.save_for_backward(feats, points, rows, weights)
        ctx.limits = limits
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        feats, points, rows, weights = ctx.saved_tensors
        upstream = grad.contiguous().numpy()
        grad_feats = grad_points = None
        if ctx.needs_input_grad[0]:
            grad_feats = torch.empty_like(feats)
            starts, taps = _taps_by_row(rows.numpy(), len(feats))
            _scatter(upstream, starts, taps, weights.numpy(), grad_feats.numpy())
        if ctx.needs_input_grad[1]:
            grad_points = torch.empty_like(points)
            _points_gradient(upstream, feats.detach().numpy(), rows.numpy(), ctx.limits, points.detach().numpy(), grad_points.numpy())
        return grad_feats, grad_points, None, None, None


@njit(cache=True, nogil=True, error_model="numpy")
def _inside(q, limit):  # pyright: ignore
    """The coordinate, moved to just outside the grid if it is farther away."""
    low, high = type(q)(-2), type(q)(limit + 1)
    return min(max(q, low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def _local(points, i, a, limits):  # pyright: ignore
    """Lower of the two cells along an axis, and how far the point is on its way from that one's centre to the next."""
    half = type(points[i, a])(0.5)
    q = _inside(points[i, a], limits[a]) - half
    base = np.floor(q)
    return np.int64(base), q - base


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _trilinear_taps(table, blocks, leaves, nx, ny, nz, samples, limits, points, batch, rows, weights):  # pyright: ignore
    """Row of each of the eight cells around, and its weight over the sum of those that exist."""
    for i in prange(len(points)):
        x, u = _local(points, i, 0, limits)
        y, v = _local(points, i, 1, limits)
        z, w = _local(points, i, 2, limits)
        total = type(u)(0)
        for k in range(8):
            a, b, c = k >> 2, (k >> 1) & 1, k & 1
            row = row_near(table, blocks, leaves, nx, ny, nz, samples, batch[i], x + a, y + b, z + c)
            weight = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
            rows[i, k] = row
            weights[i, k] = weight if row >= 0 else 0
            total += weights[i, k]
        scale = max(total, SMALLEST_SUM)
        for k in range(8):
            weights[i, k] /= scale


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _nearest_taps(table, blocks, leaves, nx, ny, nz, samples, limits, points, batch, truncate, rows):  # pyright: ignore
    """Row of the cell around each point."""
    for i in prange(len(points)):
        x, y, z = _inside(points[i, 0], limits[0]), _inside(points[i, 1], limits[1]), _inside(points[i, 2], limits[2])
        if not truncate:
            x, y, z = np.floor(x), np.floor(y), np.floor(z)
        rows[i, 0] = row_near(table, blocks, leaves, nx, ny, nz, samples, batch[i], np.int64(x), np.int64(y), np.int64(z))


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _gather(feats, rows, weights, out):  # pyright: ignore
    channels = feats.shape[1]
    for i in prange(len(rows)):
        for c in range(channels):
            out[i, c] = 0
        for k in range(rows.shape[1]):
            row, weight = rows[i, k], out.dtype.type(weights[i, k])
            if row >= 0:
                for c in range(channels):
                    out[i, c] += weight * feats[row, c]


@njit(cache=True, nogil=True, error_model="numpy")
def _taps_by_row(rows, n):  # pyright: ignore
    """Taps (point times taps of a point plus tap) of each row, ascending: those of row r are taps[starts[r]:starts[r + 1]]."""
    flat = rows.ravel()
    starts = np.zeros(n + 1, dtype=np.int64)
    for row in flat:
        if row >= 0:
            starts[row + 1] += 1
    for r in range(n):
        starts[r + 1] += starts[r]
    taps = np.empty(starts[n], dtype=np.int64)
    place = starts[:n].copy()
    for t in range(len(flat)):
        row = flat[t]
        if row >= 0:
            taps[place[row]] = t
            place[row] += 1
    return starts, taps


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _scatter(upstream, starts, taps, weights, grad):  # pyright: ignore
    flat = weights.ravel()
    each, channels = weights.shape[1], grad.shape[1]
    for row in prange(len(grad)):
        for c in range(channels):
            grad[row, c] = 0
        for j in range(starts[row], starts[row + 1]):
            point, weight = taps[j] // each, grad.dtype.type(flat[taps[j]])
            for c in range(channels):
                grad[row, c] += weight * upstream[point, c]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _points_gradient(upstream, feats, rows, limits, points, grad):  # pyright: ignore
    """Derivative of Σ w f / Σ w along the upstream gradient.

    With s the products of upstream and features: (Σ w' s − (Σ w s / Σ w) Σ w') / Σ w. Features count relative to the first
    tap that exists, which changes nothing but makes it exactly 0 where a single one does.
    """
    for i in prange(len(points)):
        _, u = _local(points, i, 0, limits)
        _, v = _local(points, i, 1, limits)
        _, w = _local(points, i, 2, limits)
        first = -1
        total, product = 0.0, 0.0
        total_x, total_y, total_z = 0.0, 0.0, 0.0
        x, y, z = 0.0, 0.0, 0.0
        for k in range(8):
            row = rows[i, k]
            if row < 0:
                continue
            if first < 0:
                first = row
            s = 0.0
            for c in range(feats.shape[1]):
                s += upstream[i, c] * (feats[row, c] - feats[first, c])
            a, b, c = u if k & 4 else 1 - u, v if k & 2 else 1 - v, w if k & 1 else 1 - w
            da, db, dc = b * c if k & 4 else -b * c, a * c if k & 2 else -a * c, a * b if k & 1 else -a * b
            total += a * b * c
            product += a * b * c * s
            total_x, total_y, total_z = total_x + da, total_y + db, total_z + dc
            x, y, z = x + da * s, y + db * s, z + dc * s
        if total > SMALLEST_SUM:
            mean = product / total
            grad[i, 0], grad[i, 1], grad[i, 2] = (x - mean * total_x) / total, (y - mean * total_y) / total, (z - mean * total_z) / total
        else:
            grad[i, 0] = grad[i, 1] = grad[i, 2] = 0
