"""Which row of a grid a cell is.

`lookup_cells` answers for any list of cells. It stands on a `BlockIndex`, which is built once for a grid and kept on it;
neighbour maps, dual faces and other ops read the same index (`_torch.rows_near`, `_numba.row_near`).
"""

from __future__ import annotations

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.aliases import Coords
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import CapacityError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._index import MAX_ROWS, BlockIndex

OP = Op(
    "lookup",
    [
        Backend("numba", "voxgen.ops.lookup._numba:lookup", (cpu_only,)),
        Backend("torch", "voxgen.ops.lookup._torch:lookup"),
        Backend("reference", "voxgen.ops.lookup._reference:lookup"),
    ],
)


def lookup_cells(grid: VoxelGrid, coords: Coords, *, backend: str = "auto") -> Int32[Tensor, " n"]:
    """The row of each given cell in the grid.

    The first call on a grid builds its `BlockIndex` (not for the reference), which later calls share.

    Args:
        grid: the cells to search.
        coords: (n, 4) int32 [batch, x, y, z] on the grid's device, in any order, repeated or not. Cells may lie outside
            the grid or the batch by any amount: such cells do not exist.
        backend: see docs/backends.md.
    Returns:
        (n,) int32 rows of the grid, -1 where the cell does not exist. Not differentiable.
    Raises:
        ShapeError, DtypeError: coords is not (n, 4) int32.   DeviceError: coords and grid on different devices.
        CapacityError: the grid has 2³¹ cells or more.
    Empty grid or no coords: all absent, or an empty result.   Batch: sample s of coords is searched in sample s.
    Source: none of the papers; published code uses a hash table on the GPU.
    Example:
        >>> cells = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]], dtype=torch.int32)
        >>> grid, _ = VoxelGrid.build(cells, resolution=8)
        >>> lookup_cells(grid, torch.tensor([[0, 4, 5, 6], [0, 4, 5, 7]], dtype=torch.int32)).tolist()
        [1, -1]
    """
    require_tensor(
        "lookup_cells", "coords", coords, ("n", 4), (torch.int32,), hint="Rows are [batch, x, y, z]. World points? Use Frame.to_cell()."
    )
    require_same_device("lookup_cells", grid=grid.coords, coords=coords)
    _require_rows("lookup_cells", grid)
    return OP.run(backend, Call.of(coords), grid, coords)


def block_index(grid: VoxelGrid, *, backend: str = "auto") -> BlockIndex:
    """The grid's two-level index, built at the first call and kept on the grid.

    Args:
        grid: any number of cells, trusted to be what `VoxelGrid` promises. The numba engine checks that as it reads them;
            torch finds cells that come twice.
        backend: which engine builds it, as for `lookup_cells`; the index is the same whoever does. The reference has no
            index, so torch serves for it.
    Returns:
        BlockIndex on the grid's device.
    Raises:
        CapacityError: the grid has 2³¹ cells or more.   DuplicateError: a cell comes twice, which only a grid made by
        `VoxelGrid.from_sorted` can have.   RangeError: cells out of range or out of order, likewise.
    Memory: see `BlockIndex`; about 30 bytes a cell of a surface, 4 a cell of a full volume.
    """
    _require_rows("block_index", grid)
    engine = OP.choose(backend, Call.of(grid.coords)).name

    def build() -> BlockIndex:
        if engine == "numba":
            from ._numba import build_index
        else:
            from ._torch import build_index
        return build_index(grid)

    return grid.cached(("block_index",), build)


def _require_rows(where: str, grid: VoxelGrid) -> None:
    if len(grid) > MAX_ROWS:
        raise CapacityError(f"{where}: rows are int32, so a grid may have at most {MAX_ROWS} cells; got {len(grid)}. Split the batch.")


__all__ = ["MAX_ROWS", "BlockIndex", "block_index", "lookup_cells"]
