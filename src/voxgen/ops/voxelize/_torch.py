"""Vectorised engine for any device: (triangle, row) pairs, then columns, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from voxgen.core.coords import unpack_keys

from ._prepare import Scene
from ._reference import Crossings, cell_keys, cut, index, neighbourhood, plane

CHUNK = 1 << 20
"""Rows, or crossings, worked on at a time; about 500 bytes each."""


def triangle_cells(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """See `voxgen.ops.voxelize.triangle_cells`."""
    cells = active_cells(scene)
    pairs = [torch.zeros(0, dtype=torch.int64, device=cells.device)]
    for found, axis in crossings(scene):
        for touched in neighbourhood(found.cells, axis):
            row = torch.searchsorted(cells, cell_keys(touched))
            pairs.append((row * len(scene.faces) + found.triangle).unique())
        if sum(map(len, pairs[1:])) > 8 * CHUNK:
            pairs = [torch.cat(pairs).unique()]
    both = torch.cat(pairs).unique()
    return unpack_keys(cells)[:, 1:].contiguous(), (both % len(scene.faces)).int(), (both // len(scene.faces)).int()


def active_cells(scene: Scene) -> Tensor:
    """Sorted keys of the cells around all crossed edges, (n,) int64."""
    known = torch.zeros(0, dtype=torch.int64, device=scene.vertices.device)
    fresh: list[Tensor] = []
    for found, axis in crossings(scene):
        # Owners first: four neighbours of few unique edges are cheaper to sort than those of all crossings.
        owners = unpack_keys(cell_keys(found.cells).unique())[:, 1:].long()
        fresh.append(torch.cat([cell_keys(c) for c in neighbourhood(owners, axis)]).unique())
        if sum(map(len, fresh)) > 8 * CHUNK:
            known, fresh = torch.cat((known, *fresh)).unique(), []
    return torch.cat((known, *fresh)).unique()


def crossings(scene: Scene) -> Iterator[tuple[Crossings, int]]:
    """All crossings of grid edges in pieces of at most `CHUNK` (one row of cells may exceed it), with their axis.

    The arithmetic is that of the reference (which see), operation by operation.
    """
    size, cells = scene.sizes(), scene.resolution
    corners = scene.vertices[scene.faces.long()].double()
    for axis in range(3):
        a0, a1 = (axis + 1) % 3, (axis + 2) % 3
        order = corners[:, :, a1].argsort(dim=1, stable=True)
        p = corners.gather(1, order[:, :, None].expand(-1, -1, 3))
        rows = index(p[:, :, a1], size[a1], cells[a1])
        for t, step in expand(rows[:, 2] - rows[:, 0]):
            row = rows[t, 0] + step
            y = plane(row, size[a1])
            lower = (row < rows[t, 1])[:, None]
            first, last = p[t, 0], p[t, 2]
            base, far = torch.where(lower, first, last), torch.where(lower, last, first)
            a, b = cut(base, p[t, 1], a1, y, scene.closed), cut(base, far, a1, y, scene.closed)
            swap = (b[:, a0] < a[:, a0])[:, None]
            a, b = torch.where(swap, b, a), torch.where(swap, a, b)
            start = index(a[:, a0], size[a0], cells[a0])
            for r, step in expand(index(b[:, a0], size[a0], cells[a0]) - start):
                column = start[r] + step
                x = plane(column, size[a0])
                z = cut(a[r], b[r], a0, x)[:, axis]
                layer = (z / size[axis]).long()
                if scene.closed:
                    layer = layer.clamp(max=cells[axis] - 1)
                parts = {a0: (column, x), a1: (row[r], y[r]), axis: (layer, z)}
                owner = torch.stack([parts[k][0] for k in range(3)], 1)
                point = torch.stack([parts[k][1] for k in range(3)], 1)
                inside = (layer >= 0) & (layer < cells[axis])
                yield Crossings(t[r][inside], owner[inside], point[inside]), axis


def expand(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Repeat each index counts[i] times, in pieces of about `CHUNK`: (index, number of the repetition), both int64."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    begin = 0
    while begin < len(counts):
        done = int(ends[begin - 1]) if begin else 0
        if done == total:
            return
        end = max(begin + 1, int(torch.searchsorted(ends, done + CHUNK, right=True)))
        part = counts[begin:end]
        i = torch.arange(begin, end, device=counts.device).repeat_interleave(part)
        step = torch.arange(len(i), device=counts.device) - (ends[i] - counts[i] - done)
        if len(i):
            yield i, step
        begin = end
