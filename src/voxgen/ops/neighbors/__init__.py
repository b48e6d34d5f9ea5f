"""Neighbour tables: which cells of a grid a convolution's footprint meets at each output."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_same_device
from voxgen.core.errors import CapacityError, RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only, untraced
from voxgen.ops.lookup import MAX_ROWS

from ._key import NeighborKey, Sites, make_key
from ._relation import Relation
from ._sites import output_grid
from ._table import NeighborTable

NEIGHBORS = Op(
    "neighbors",
    [
        Backend("numba", "voxgen.ops.neighbors._numba:find_rows", (cpu_only,)),
        Backend("torch", "voxgen.ops.neighbors._torch:find_rows"),
        Backend("reference", "voxgen.ops.neighbors._reference:find_rows"),
    ],
)


def neighbor_table(
    grid: VoxelGrid,
    *,
    kernel_size: int | Int3 = 3,
    dilation: int | Int3 = 1,
    stride: int | Int3 = 1,
    padding: int | Int3 | None = None,
    sites: Sites = "floor",
    transposed: bool = False,
    out_grid: VoxelGrid | None = None,
    backend: str = "auto",
) -> NeighborTable:
    """For each output cell and each offset of a footprint, the row of the input cell that meets it.

    Output o and offset k = (i, j, l) belong to the input cell `stride·o − padding + dilation·k`, as in `conv3d`. With
    stride 1 the outputs are the inputs (submanifold). `transposed=True` exchanges the roles, as in `conv_transpose3d`:
    input o belongs to the output `stride·o − padding + dilation·k`, so a coarse grid is spread over a finer one. The way
    back along an existing strided table is `neighbor_table(fine, stride=2, ...).transposed()`, which costs nothing new.

    Args:
        grid: (n_in cells) the inputs.
        kernel_size: cells along x, y, z, one number or three. Odd, or equal to the stride along its axis.
        dilation: distance of two offsets in cells.
        stride: distance of two outputs in input cells.
        padding: where the first window begins; None puts the middle of an odd window on `stride·o` and begins an even
            one there. torchsparse uses 0 for strided layers, spconv what its layer says.
        sites: where a strided table has outputs, "floor" or "window"; see `Sites`. They agree when kernel_size equals
            stride, padding is 0 and the resolution is a multiple of the stride.
        transposed: spread instead of gather.
        out_grid: the outputs, where they are known (the cells to generate, the level to return to). None takes the cells
            above, or for `transposed` all cells that are reached (generative).
        backend: see docs/backends.md. All give the same table.
    Returns:
        NeighborTable with n_out rows and K = kx·ky·kz columns, offsets x slowest. Built once for a grid (and out_grid)
        and key, whatever the backend. Not differentiable.
    Raises:
        RangeError: an even kernel_size that is not the stride; a size, stride or dilation below 1; a footprint of which
            no window fits, or that reaches over 131,072 cells; outputs of a resolution above 65,536; an out_grid of another
            batch size.   FrameError: an out_grid whose frame does not fit the
            stride.   DeviceError: grids on different devices.   CapacityError: 2³¹ cells or more, or a
        table for which there is no memory.
    Empty grids and samples are legal.   Batch: neighbours are of one sample.
    Memory: 4 · n_out · K bytes; the transposed rows of a strided table as much again, once a gradient asks for them.
    Source: `sparse convolution` as in TRELLIS.2's and spconv's submanifold layers; differences: none.
    Example:
        >>> table = neighbor_table(grid, kernel_size=3)
        >>> table.table[:, 13].tolist() == list(range(len(grid)))     # the middle offset is the cell itself
        True
    """
    where = "neighbor_table"
    key = make_key(where, kernel_size, dilation, stride, padding, sites, transposed)
    if len(grid) > MAX_ROWS:
        raise CapacityError(f"{where}: rows are int32, so a grid may have at most {MAX_ROWS} cells; got {len(grid)}. Split the batch.")
    if out_grid is not None:
        _check_outputs(where, grid, out_grid, key)
        if out_grid is grid and key.stays_on_inputs:
            out_grid = None
    if backend != "auto":  # a name that cannot serve raises even where the table is there already
        NEIGHBORS.choose(backend, Call.of(grid.coords))
    if out_grid is None:
        outputs = grid if key.stays_on_inputs else grid.cached(("neighbor outputs", key), lambda: output_grid(grid, key))
        relation = grid.cached(("neighbors", key), lambda: untraced(_build)(backend, grid, outputs, key))
        return NeighborTable(grid, outputs, key, relation)
    known: WeakKeyDictionary[VoxelGrid, dict[NeighborKey, Relation]] = grid.cached(("neighbors onto",), WeakKeyDictionary)
    relations = known.setdefault(out_grid, {})
    if key not in relations:
        with torch.inference_mode(False):
            relations[key] = untraced(_build)(backend, grid, out_grid, key)
    return NeighborTable(grid, out_grid, key, relations[key])


def _build(backend: str, grid: VoxelGrid, outputs: VoxelGrid, key: NeighborKey) -> Relation:
    remedy = "Use a smaller kernel_size, or split the batch."
    require_memory("neighbor_table", 4 * len(outputs) * key.volume, grid.device, remedy)
    engine = NEIGHBORS.choose(backend, Call.of(grid.coords)).load()
    return Relation(engine(grid, outputs, key), len(grid), symmetric=outputs is grid and key.is_centered)


def _check_outputs(where: str, grid: VoxelGrid, out_grid: VoxelGrid, key: NeighborKey) -> None:
    require_same_device(where, grid=grid.coords, out_grid=out_grid.coords)
    if out_grid.batch_size != grid.batch_size:
        raise RangeError(f"{where}: out_grid must have the grid's batch_size, {grid.batch_size}; got {out_grid.batch_size}.")
    if len(out_grid) > MAX_ROWS:
        raise CapacityError(f"{where}: out_grid may have at most {MAX_ROWS} cells; got {len(out_grid)}. Split the batch.")
    expected = grid.frame.refine(key.stride) if key.transposed else grid.frame.coarsen(key.stride)
    expected.require_close(f"{where}: out_grid at stride {key.stride}", out_grid.frame)


__all__ = ["NeighborKey", "NeighborTable", "Sites", "neighbor_table"]
