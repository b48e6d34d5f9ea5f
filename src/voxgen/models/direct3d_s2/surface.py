"""What of a volume a surface passes: the cells that extraction needs, of a dense field and of a band with signs around it."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.grid_sets import children, dilate, union
from voxgen.ops.lookup import lookup_cells

__all__ = ["crossed_cells", "crossed_field", "signed_field"]


def crossed_cells(inside: Bool[Tensor, "b x y z"]) -> Bool[Tensor, "b x y z"]:
    """Cells of the cubes of 2 × 2 × 2 cells that have some inside and some outside: all that marching cubes needs.

    Memory: a few bytes a cell.
    Raises:
        ShapeError, DtypeError: not (b, x, y, z) booleans.
    Example:
        >>> volume = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
        >>> volume[0, 0] = True
        >>> crossed_cells(volume)[0, :, 0, 0].tolist()
        [True, True, False, False]
    """
    require_tensor("crossed_cells", "inside", inside, ("b", "x", "y", "z"), (torch.bool,))
    some, every = inside, inside
    for axis in (1, 2, 3):
        pairs = inside.shape[axis] - 1
        some = some.narrow(axis, 0, pairs) | some.narrow(axis, 1, pairs)
        every = every.narrow(axis, 0, pairs) & every.narrow(axis, 1, pairs)
    crossed = some & ~every
    for last in (0, 1, 2):  # a cube marks the cells at both ends of each of its sides
        before = (0, 0) * last
        crossed = F.pad(crossed, (*before, 0, 1)) | F.pad(crossed, (*before, 1, 0))
    return crossed


def crossed_field(volume: Float[Tensor, "b 1 x y z"], level: float, frame: Frame | None = None) -> SparseTensor:
    """A dense field where a surface passes it, sparse: marching cubes finds on these cells what it finds in the volume.

    Args:
        volume: (b, 1, x, y, z) floats, as `SDFRefiner.refine` gives them.
        level: of the surface; a value below it is inside. NaN is outside. Extract at the same number, one that float32 has.
        frame: of the volume; None is the unit cube.
    Returns:
        (n, 1) values in the dtype of the volume. Differentiable in it.
    Raises:
        ShapeError, DtypeError: another volume.
    Memory: a few bytes a cell, and one sample in float32.
    Example:
        >>> crossed_field(torch.linspace(-1, 1, 8).view(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 8), 0.2).grid.cells[:, 0].unique().tolist()
        [4, 5]
    """
    require_tensor("crossed_field", "volume", volume, ("b", 1, "x", "y", "z"), FLOATS)
    values = volume[:, 0]
    wide = torch.promote_types(volume.dtype, torch.float32)  # in which extraction compares; half types would round the level
    inside = torch.empty(values.shape, dtype=torch.bool, device=volume.device)
    for i, sample in enumerate(values.detach()):
        inside[i] = sample.to(wide) < level
    coords = crossed_cells(inside).nonzero()
    sides = cast(Int3, tuple(values.shape[1:]))
    grid = VoxelGrid.from_sorted(coords.int(), resolution=sides, batch_size=len(values), frame=frame)
    return SparseTensor(grid, values[coords.unbind(1)][:, None])


def signed_field(field: SparseTensor, outside: Bool[Tensor, "b x y z"]) -> SparseTensor:
    """A band, and 1 or −1 around it: `signed_volume` where a surface between −1 and 1 passes it, without the volume.

    Args:
        field: (n, 1) floats on the cells of the band.
        outside: whether cells lie outside, as `SignRefiner.outside` gives it; its sides divide the resolution of field.
    Returns:
        The cells of the band with their values, those around it, and those where the sign changes elsewhere. Differentiable in
        field.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
    Example:
        >>> around = signed_field(field, torch.ones(1, 16, 16, 16, dtype=torch.bool))          # field: (n, 1) on 32³ cells
        >>> around.grid.resolution, len(around) > len(field)
        ((32, 32, 32), True)
    """
    where = "signed_field"
    sides = field.grid.resolution
    require_tensor(where, "outside", outside, (field.grid.batch_size, "x", "y", "z"), (torch.bool,))
    require_same_device(where, field=field.feats, outside=outside)
    if field.channels != 1 or any(n % m for n, m in zip(sides, outside.shape[1:], strict=True)):
        raise ShapeError(
            f"{where}: field must have one channel, and the sides of outside must divide its resolution {sides}; "
            f"got {field.channels} channels and {tuple(outside.shape[1:])}."
        )
    coarse = cast(Int3, tuple(outside.shape[1:]))
    factor = cast(Int3, tuple(n // m for n, m in zip(sides, coarse, strict=True)))
    # A cube of cells that lies between cells of `outside` with different signs lies in a cube of those that is crossed.
    border = crossed_cells(outside).nonzero().int()
    frame = field.grid.frame.coarsen(factor)
    changing = VoxelGrid.from_sorted(border, resolution=coarse, batch_size=len(outside), frame=frame)
    grid = union(dilate(field.grid), children(changing, factor=factor))
    rows = lookup_cells(field.grid, grid.coords).long()
    b, cells = grid.coords[:, 0].long(), grid.cells.long() // torch.tensor(factor, device=grid.device)
    sign = outside[b, cells[:, 0], cells[:, 1], cells[:, 2]].to(field.dtype) * 2 - 1
    if not len(field):
        return SparseTensor(grid, sign[:, None])
    known = field.feats.index_select(0, rows.clamp_min(0))
    return SparseTensor(grid, torch.where(rows[:, None] >= 0, known, sign[:, None]))
