"""Compiled CPU engine: one mark a cell in a table of all cells, or sorted keys where that would be too large."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from voxgen.core import Frame
from voxgen.core.aliases import Int3
from voxgen.core.coords import AXIS_BITS, unpack_keys

TABLE = 1 << 27
"""Up to this many cells in all samples, a table of them replaces a sort of the keys."""


def point_cells(points: Tensor, batch: Tensor, batch_size: int, frame: Frame, resolution: Int3, skin: float, inset: float) -> Tensor:
    """See `voxgen.ops.point_cells.point_cells`; (n, 4) int32 in lexicographic order."""
    x, y, z = resolution
    space = (np.array(frame.origin), np.array(frame.voxel_size) * resolution, np.array(resolution), np.array(frame.voxel_size) * skin)
    arguments = (np.ascontiguousarray(points.double().numpy()), batch.numpy(), *space, inset)
    if batch_size * x * y * z <= TABLE:
        marks = np.zeros(batch_size * x * y * z, np.bool_)
        _mark(*arguments, marks)
        where = np.flatnonzero(marks)
        rest, k = np.divmod(where, z)
        rest, j = np.divmod(rest, y)
        b, i = np.divmod(rest, x)
        return torch.from_numpy(np.stack((b, i, j, k), 1).astype(np.int32))
    keys = np.empty((len(points), 27), np.int64)
    counts = _list(*arguments, keys)
    listed = keys[np.arange(27) < counts[:, None]]
    return unpack_keys(torch.from_numpy(listed).unique())


@njit(cache=True, nogil=True, error_model="numpy")
def _axis(p, origin, side, cells, skin, inset, out):
    """Write the cells of p − skin, p, p + skin along one axis, each once; how many."""
    count = 0
    for step in range(-1, 2):
        q = min(max(p + step * skin, origin + inset * side), origin + (1 - inset) * side)
        cell = min(max(int(np.floor((q - origin) / side * cells)), 0), cells - 1)
        if count == 0 or out[count - 1] != cell:  # they ascend
            out[count] = cell
            count += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _axes(point, origin, side, cells, skin, inset, out):
    """`_axis` along all three, to the rows of out (3, 3)."""
    nx = _axis(point[0], origin[0], side[0], cells[0], skin[0], inset, out[0])
    ny = _axis(point[1], origin[1], side[1], cells[1], skin[1], inset, out[1])
    return nx, ny, _axis(point[2], origin[2], side[2], cells[2], skin[2], inset, out[2])


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(points, batch, origin, side, cells, skin, inset, marks):
    c = np.empty((3, 3), np.int64)
    for p in range(len(points)):
        nx, ny, nz = _axes(points[p], origin, side, cells, skin, inset, c)
        for i in range(nx):
            for j in range(ny):
                for k in range(nz):
                    marks[((batch[p] * cells[0] + c[0, i]) * cells[1] + c[1, j]) * cells[2] + c[2, k]] = True


@njit(cache=True, nogil=True, error_model="numpy")
def _list(points, batch, origin, side, cells, skin, inset, keys):
    c = np.empty((3, 3), np.int64)
    counts = np.zeros(len(points), np.int64)
    for p in range(len(points)):
        nx, ny, nz = _axes(points[p], origin, side, cells, skin, inset, c)
        for at in range(nx * ny * nz):
            high = (np.int64(batch[p]) << AXIS_BITS | c[0, at // (ny * nz)]) << AXIS_BITS
            keys[p, at] = (high | c[1, at // nz % ny]) << AXIS_BITS | c[2, at % nz]
        counts[p] = nx * ny * nz
    return counts
