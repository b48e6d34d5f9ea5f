"""A field among cells that are outside, so that its surface closes where the cells end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from voxgen.core import VoxelGrid
from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.core.errors import RangeError
from voxgen.ops.cube_corners import cube_corners

from ._transform import corner_rows

if TYPE_CHECKING:
    from ._fields import SparseFlex

GAMMA = 0.5
"""Weight of a cell that nothing is said of: what raw zeros give."""


def enclosed(flex: SparseFlex, outside: float = 1.0) -> SparseFlex:
    """The field with the missing cells around its inside corners, whose own corners are outside.

    The surface then closes wherever inside values reach the border of the cells, but for the border of the grid: what dense FlexiCubes
    extracts where corners that no cell has are given a value outside. Only cells that matter for the surface are added.

    Args:
        outside: sdf of the new corners, positive; TRELLIS has 1.
    Returns:
        A SparseFlex on more cells; new corners are not moved, new cells have alpha and beta 1 and gamma ½. Differentiable.
    Raises:
        RangeError: a value that is not positive and finite.
    Source: TRELLIS' mesh extraction on a dense grid; differences: nothing dense is made.
    """
    from ._fields import PER_CORNER, SparseFlex

    if not (math.isfinite(outside) and outside > 0):
        raise RangeError(f"SparseFlex.enclosed: outside must be positive and finite; got {outside}.")
    old = flex.grid
    inside = flex.corners.coords[flex.sdf.detach() < 0]
    steps = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32, device=old.device)] * 3)
    around = (inside[:, None] - torch.nn.functional.pad(steps, (1, 0))).flatten(0, 1)
    limits = torch.tensor(old.resolution, dtype=torch.int32, device=old.device)
    cells = around[:, 1:]
    around = around[((cells >= 0) & (cells < limits)).all(1)]
    coords = unpack_keys(torch.cat((old.keys, pack_keys(around))).unique())
    grid = VoxelGrid.from_sorted(coords, resolution=old.resolution, batch_size=old.batch_size, frame=old.frame)
    rows = grid.rows_of(old.coords)
    corners = corner_rows(old, grid, rows)
    new = {"sdf": outside, "offsets": 0.0, "alpha": 1.0, "beta": 1.0, "gamma": GAMMA}
    fields = {}
    for name, value in flex.tensors().items():
        size = len(cube_corners(grid)) if name in PER_CORNER else len(grid)
        start = value.new_full((size, *value.shape[1:]), new[name])
        fields[name] = start.index_copy(0, corners if name in PER_CORNER else rows, value)
    return SparseFlex(grid, **fields)
