"""Save and load: .safetensors files of cells, the field at corners, and weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from voxgen.core import VoxelGrid
from voxgen.core.checks import require_finite
from voxgen.core.coords import check_coords, is_sorted
from voxgen.core.errors import DtypeError, FileFormatError, RangeError, ShapeError
from voxgen.representations._tensor_file import read_tensors, require_finite_values, require_names, write_tensors
from voxgen.representations.ovoxel._metadata import Volume

if TYPE_CHECKING:
    from ._fields import SparseFlex

FORMAT = "voxgen-sparse-flex"


def save(flex: SparseFlex, path: str | Path) -> None:
    """Write one object to a .safetensors file, fields in their dtype.

    Raises:
        FileFormatError: another suffix.   RangeError: a batch of several objects; fields that are not finite.
        OSError: cannot write; the old file, if any, is as it was.
    """
    where = "SparseFlex.save"
    if flex.batch_size != 1:
        raise RangeError(f"{where}: a file holds one object; got a batch of {flex.batch_size}. Save .sample(i) each.")
    for name, value in flex.tensors().items():
        require_finite(where, name, value)
    volume = Volume(flex.resolution, flex.frame, "round", {})
    write_tensors(where, path, FORMAT, volume, {"cells": flex.grid.cells, **flex.tensors()})


def load(path: str | Path) -> SparseFlex:
    """Read what `save` wrote, on the CPU.

    Raises:
        FileFormatError: a damaged or foreign file; the message names it.   OSError: cannot read.
    """
    from ._fields import PER_CELL, SparseFlex

    where = "SparseFlex.load"
    volume, tensors = read_tensors(where, path, FORMAT)
    where = f"{where}: {path}"
    require_names(where, tensors, {"cells", "sdf"}, {"offsets", *PER_CELL})
    require_finite_values(where, tensors)
    cells = tensors.pop("cells")
    if cells.dtype != torch.int32 or cells.ndim != 2 or cells.shape[1] != 3:
        raise FileFormatError(f"{where}: cells must be (n, 3) int32; got {tuple(cells.shape)} {cells.dtype}.")
    coords = torch.nn.functional.pad(cells, (1, 0))
    try:
        check_coords(where, coords, volume.resolution, 1)
        grid = VoxelGrid.from_sorted(coords, resolution=volume.resolution, batch_size=1, frame=volume.frame)
        if not is_sorted(grid.keys):
            raise FileFormatError(f"{where}: cells must be unique and in lexicographic order.")
        return SparseFlex(grid, **tensors)
    except (RangeError, ShapeError, DtypeError) as error:
        raise FileFormatError(f"{where}: {error}") from None
