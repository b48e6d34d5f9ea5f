"""The same surface from slabs of the grid, one after another: corners and values exist for one slab at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from voxgen.core.checks import require_int
from voxgen.core.errors import EmptyResultWarning
from voxgen.core.grid import VoxelGrid

from ._assemble import Options, assemble
from ._inputs import FlexInputs, check, require_index, run
from ._problem import Topology
from ._surface import FlexSurface

BEHIND, AHEAD = 3, 2
"""Layers around a slab. The layer behind has vertices of quads in the slab; whether its cells, and those of the slab's last layer,
are one of a problematic pair depends on the next layer on either side, and the corners of that are means over one more."""

Field = Callable[[VoxelGrid, slice], FlexInputs]
"""(part of the grid, its rows) → the field on the part, whose values must be those of the whole grid wherever the cells around a
corner are in the part."""


def flexicubes_in_slabs(
    grid: VoxelGrid,
    field: Field,
    *,
    cells: int = 1 << 22,
    training: bool = False,
    keep_unused: bool = False,
    progress: bool = False,
    backend: str = "auto",
) -> FlexSurface:
    """What `flexicubes` gives, bit for bit, without ever holding the corners of the whole grid.

    The grid is cut between layers along x. For each slab, with five layers around it, `field` is asked for values, which may come
    from a function of space, or from channels of each cell by `average_at_corners`.

    Args:
        grid: (n cells), any number of samples.
        field: called as `field(part, rows)`, where `part` is the grid of rows `rows` (a slice); returns the values at
            `cube_corners(part)` and the weights of its cells. Where a corner lacks a cell in the part that the whole grid has, its
            value is not used, and may be any finite number.
        cells: about how many cells to take at a time; a slab has at least one layer.
        training, keep_unused, backend: as in `flexicubes`.
        progress: show a bar.
    Returns:
        FlexSurface without `field`, so that it has no `crossings`. Differentiable in what `field` returns.
    Raises, Warns:
        as `flexicubes`.
    Memory: the result, and for each cell of a slab some 100 bytes and what `field` takes.
    Example:
        >>> from voxgen.ops.flexicubes import cube_corners
        >>> from voxgen.testing.grids import full_grid
        >>> def ball(part, rows):
        ...     return FlexInputs(part.frame.to_world(cube_corners(part).coords[:, 1:].float()).norm(dim=1) - 0.3)
        >>> flexicubes_in_slabs(full_grid(16), ball, cells=1000)
        FlexSurface(416 vertices, 828 faces, batch_size=1)
    """
    from tqdm import tqdm

    from . import OP

    where = "flexicubes_in_slabs"
    cells = require_int(where, "cells", cells, 1)
    slabs = _slabs(grid, cells) or [(0, 0, 0, 0, 0)]
    topologies: list[Topology] = []
    placed: list[Tensor] = []
    weights: list[Tensor] = []
    total = 0
    with tqdm(total=len(grid), desc="slabs", unit="cell", disable=not progress) as bar:
        for low, before, start, end, high in slabs:
            part = VoxelGrid(grid.coords[low:high], grid.resolution, grid.batch_size, grid.frame)
            row = torch.arange(low, high, device=grid.device)
            inputs = field(part, slice(low, high))
            problem = check(where, part, inputs, (row >= before) & (row < end), strict=False)
            found, vertices, products = run(OP, backend, where, problem, inputs.gamma)
            old, old_quads = int((found.cell < start - low).sum()), int((found.quad_cell < start - low).sum())
            topologies.append(
                Topology(
                    found.case[start - low : end - low],
                    found.cell[old:] + low,
                    found.edges[old:],
                    found.quads[old_quads:] + (total - old),
                    found.quad_cell[old_quads:] + low,
                    found.quad_axis[old_quads:],
                )
            )
            placed.append(vertices[old:])
            weights.append(products[old_quads:])
            total += len(vertices) - old
            require_index(where, total)
            bar.update(end - start)
    found = Topology(*(torch.cat(parts) for parts in zip(*topologies, strict=True)))
    require_index(where, total + len(found.quads))
    if len(grid) and not len(found.quads):
        why = "no cell has corners of both signs" if total == 0 else "no edge that changes sign has all of its four cells"
        warnings.warn(f"{where}: the surface is empty: {why}.", EmptyResultWarning, stacklevel=2)
    return assemble(grid, found, torch.cat(placed), torch.cat(weights), None, Options(training, False, keep_unused))


def _slabs(grid: VoxelGrid, cells: int) -> list[tuple[int, int, int, int, int]]:
    """Rows of each slab and around it: where its part begins, its layer behind, the slab, its end, the end of its part."""
    layer = grid.coords[:, 0].long() << 32 | grid.coords[:, 1]
    layers, counts = layer.unique_consecutive(return_counts=True)
    first = torch.cat((counts.new_zeros(1), counts.cumsum(0)))

    def row_of(wanted: Tensor) -> int:
        """First row of a layer that is not before this one."""
        return int(first[torch.searchsorted(layers, wanted)])

    found = []
    at = 0
    while at < len(layers):
        start = int(first[at])
        # up to the last layer that ends within the number of cells, and one layer at least
        until = max(at + 1, int(torch.searchsorted(first, start + cells, right=True)) - 1)
        last = layers[until - 1]
        low, before = row_of(layers[at] - BEHIND), row_of(layers[at] - 1)
        found.append((low, before, start, int(first[until]), row_of(last + AHEAD + 1)))
        at = until
    return found
