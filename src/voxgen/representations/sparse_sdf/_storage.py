"""Save and load: .npz archives of cells and distances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from voxgen.core import VoxelGrid
from voxgen.core.coords import check_coords
from voxgen.core.errors import FileFormatError, RangeError, ShapeError
from voxgen.representations.ovoxel._metadata import Volume, volume_from_json, volume_to_json
from voxgen.representations.ovoxel._npz import read_npz, write_npz

if TYPE_CHECKING:
    from ._fields import SparseSDF

FORMAT = "voxgen-sparse-sdf"


def save(sdf: SparseSDF, path: str | Path) -> None:
    """Write one object to an .npz file: cells as uint16, distances as float16 if they are, else float32.

    Raises:
        FileFormatError: another suffix.   RangeError: a batch of several objects; distances not finite.
        OSError: cannot write; the old file, if any, is as it was.
    """
    where = "SparseSDF.save"
    _require_suffix(where, path)
    if sdf.batch_size != 1:
        raise RangeError(f"{where}: a file holds one object; got a batch of {sdf.batch_size}. Save .sample(i) each.")
    values = sdf.sdf_cells.detach().cpu()
    if not bool(torch.isfinite(values).all()):
        raise RangeError(f"{where}: distances must be finite; {int((~torch.isfinite(values)).sum())} of {len(values)} are not.")
    about = Volume(sdf.resolution, sdf.frame, "round", {"band": sdf.band, "signed": sdf.signed})
    stored = values if values.dtype == torch.float16 else values.float()
    write_npz(path, sdf.grid.cells.cpu(), {"sdf_cells": stored}, metadata=volume_to_json(about), kind=FORMAT)


def load(path: str | Path) -> SparseSDF:
    """Read what `save` wrote, on the CPU.

    Raises:
        FileFormatError: a damaged or foreign file; the message names it.   OSError: cannot read.
    """
    from ._fields import SparseSDF

    where = f"SparseSDF.load: {path}"
    _require_suffix("SparseSDF.load", path)
    file = read_npz(path, kind=FORMAT)
    if list(file.attributes) != ["sdf_cells"] or file.metadata is None:
        raise FileFormatError(f"{where}: must hold 'sdf_cells' and nothing else; holds {sorted(file.attributes)}.")
    volume = volume_from_json(where, file.metadata)
    band, signed = volume.extra.get("band"), volume.extra.get("signed")
    if not isinstance(band, (int, float)) or isinstance(band, bool) or not isinstance(signed, bool):
        raise FileFormatError(f"{where}: metadata must say 'band', a number, and 'signed', true or false; got {band!r} and {signed!r}.")
    values = file.attributes["sdf_cells"]
    if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
        raise FileFormatError(f"{where}: distances must be finite floats.")
    coords = torch.nn.functional.pad(file.coords, (1, 0))
    try:
        check_coords(where, coords, volume.resolution, 1)
        grid = VoxelGrid.from_sorted(coords, resolution=volume.resolution, batch_size=1, frame=volume.frame)
        return SparseSDF(grid, values, float(band), signed)
    except (RangeError, ShapeError) as error:
        raise FileFormatError(str(error)) from None


def _require_suffix(where: str, path: str | Path) -> None:
    if Path(path).suffix.lower() != ".npz":
        raise FileFormatError(f"{where}: {path}: the suffix must be .npz; got {Path(path).suffix!r}.")
