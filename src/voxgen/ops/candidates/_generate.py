"""Candidate cells of the next finer level, by three generators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.aliases import Coords, Int3
from voxgen.core.checks import require_choice, require_int3
from voxgen.core.coords import MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import CapacityError
from voxgen.core.frame import Frame
from voxgen.core.grid import VoxelGrid
from voxgen.core.memory import require_memory
from voxgen.ops.grid_sets import child_offsets
from voxgen.ops.lookup import MAX_ROWS, lookup_cells

__all__ = ["CandidateKind", "Candidates", "candidates"]

CandidateKind = Literal["children8", "kernel3", "corner"]
"""How candidates are made of a cell v of the coarser level.

"children8": 2v + {0, 1}³, the eight children. "kernel3": 2v + {−1, 0, 1}³, each cell once, as a generative convolution of kernel 3 and
stride 2 does. "corner": 2v + {−1, 0, 1, 2}³, each cell once, the eight cells around each corner of v.
"""

_REACH: dict[str, tuple[int, int]] = {"children8": (0, 1), "kernel3": (-1, 1), "corner": (-1, 2)}
"""First and last of the fine layers around the first one of a coarse cell, along each axis."""
_BYTES = {"children8": 24, "kernel3": 27 * 24, "corner": 64 * 24}
"""What the candidates of a cell take at the peak."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Cells that an upsampling module may make. Made by `candidates`.

    Attributes:
        parents: (p cells) the coarser level.
        kind: see `CandidateKind`.
        coords: (m, 4) int32 [batch, x, y, z]. "children8": parent by parent, the children of each in the order (0,0,0), (0,0,1),
            (0,1,0), …, (1,1,1), so candidate 8·row + 4x + 2y + z. The others: lexicographic.
        parent: (m,) int32 row of the cell that a candidate is a child of, −1 where that does not exist ("kernel3", "corner").
        resolution, frame: of the finer level.
    """

    parents: VoxelGrid
    kind: CandidateKind
    coords: Coords
    parent: Int32[Tensor, " m"]
    resolution: Int3
    frame: Frame

    def __len__(self) -> int:
        return len(self.coords)


def candidates(parents: VoxelGrid, kind: CandidateKind = "children8") -> Candidates:
    """The candidates that a generator makes of a grid; those outside the finer grid are left out.

    Args:
        parents: (p cells) the coarser level, any batch.
        kind: see `CandidateKind`. All three contain every cell of a surface whose cells the parents are; "children8" is the smallest.
    Returns:
        Candidates.
    Raises:
        RangeError: an unknown kind, or a finer resolution beyond 65,536.   CapacityError: 2³¹ candidates or more, or more than
        memory holds.
    Empty grids and samples are legal.   Batch: candidates stay in the sample of their parent.
    Source: Sparse-Up, upsampling module ("generate eight new ones"), of which the paper leaves open which eight; differences: none.
    Cost: sorting of p · 27 or p · 64 keys for the last two.
    Example:
        >>> grid, _ = VoxelGrid.build(torch.tensor([[0, 1, 1, 1]], dtype=torch.int32), resolution=4)
        >>> [len(candidates(grid, kind)) for kind in ("children8", "kernel3", "corner")]
        [8, 27, 64]
    """
    where = "candidates"
    require_choice(where, "kind", kind, get_args(CandidateKind))
    resolution = require_int3(where, "the finer resolution", [2 * r for r in parents.resolution], 1, MAX_RESOLUTION)
    low, high = _REACH[kind]
    count = len(parents) * (high - low + 1) ** 3
    if len(parents) * 8 > MAX_ROWS:
        raise CapacityError(f"{where}: rows are int32, so there may be at most {MAX_ROWS} candidates; got {count}. Split the batch.")
    require_memory(where, len(parents) * _BYTES[kind], parents.device, "Split the batch, or use kind='children8'.")
    first = parents.coords * torch.tensor([1, 2, 2, 2], dtype=torch.int32, device=parents.device)
    frame = parents.frame.refine(2)
    if kind == "children8":
        places = torch.nn.functional.pad(child_offsets((2, 2, 2), "x_slowest", parents.device), (1, 0))
        coords = (first[:, None] + places).reshape(-1, 4)
        parent = torch.arange(len(parents), dtype=torch.int32, device=parents.device).repeat_interleave(8)
        return Candidates(parents, kind, coords, parent, resolution, frame)
    axis = torch.arange(low, high + 1, dtype=torch.int32, device=parents.device)
    places = torch.nn.functional.pad(torch.cartesian_prod(axis, axis, axis), (1, 0))
    reached = (first[:, None] + places).reshape(-1, 4)
    limits = torch.tensor(resolution, device=parents.device)
    inside = ((reached[:, 1:] >= 0) & (reached[:, 1:] < limits)).all(1)
    coords = unpack_keys(pack_keys(reached[inside]).unique())
    parent = lookup_cells(parents, coords // torch.tensor([1, 2, 2, 2], dtype=torch.int32, device=parents.device))
    return Candidates(parents, kind, coords, parent, resolution, frame)
