"""Which cells can be reached from outside of a grid without passing a wall."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.aliases import Coords
from voxgen.core.checks import require_same_device
from voxgen.core.coords import check_coords
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only

__all__ = ["flood"]

OP = Op(
    "flood",
    [
        Backend("numba", "voxgen.ops.flood._numba:flood", (cpu_only,)),
        Backend("reference", "voxgen.ops.flood._reference:flood"),
    ],
)


def flood(wall: VoxelGrid, cells: Coords, *, backend: str = "auto") -> Bool[Tensor, " m"]:
    """True for the cells that water around the grid would reach through the six faces of cells that are no wall.

    The volume is never built: in each lattice column along z the cells between two walls are one node, and nodes of neighbouring
    columns that overlap are joined.

    Args:
        wall: (n cells) that water does not enter, any number of samples.
        cells: (m, 4) int32 [batch, x, y, z] inside the grid, in any order: which cells to ask for.
        backend: see docs/backends.md.
    Returns:
        (m,) bool; false for cells of the wall.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: cells of a wrong kind, or outside the grid.
        CapacityError: the columns do not fit in free memory.
    Memory: 20 bytes for each column (x, y) of a sample and for each wall cell.
    No wall: all true.   Batch: water in one sample reaches no other.
    Source: none of the papers; the usual flood fill of voxelised meshes.
    Example:
        >>> from voxgen.testing.grids import full_grid
        >>> room = full_grid(3).coords + torch.tensor([0, 1, 1, 1], dtype=torch.int32)
        >>> wall, _ = VoxelGrid.build(room[torch.arange(27) != 13], resolution=5)
        >>> flood(wall, torch.tensor([[0, 0, 0, 0], [0, 2, 2, 2], [0, 1, 1, 1]], dtype=torch.int32))
        tensor([ True, False, False])
    """
    check_coords("flood", cells, wall.resolution, wall.batch_size)
    require_same_device("flood", wall=wall.coords, cells=cells)
    columns = wall.batch_size * wall.resolution[0] * wall.resolution[1]
    require_memory("flood", 20 * (columns + len(wall)), wall.device, "Lower the resolution, or fill the samples one by one.")
    if len(cells) == 0:
        return torch.zeros(0, dtype=torch.bool, device=cells.device)
    return OP.run(backend, Call.of(cells), wall, cells)
